"""Work that runs beside the requests: kept alive, its failures told. On the ground floor: imports no room."""
