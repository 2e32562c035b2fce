-- Makes a reservation's charge what its replica says: after progress, a move, or an outage.
-- KEYS: load, this replica's reservations, dropped
-- ARGV: reservation, endpoint, queued tokens
local load, reservations, dropped = KEYS[1], KEYS[2], KEYS[3]
local id, endpoint, queued = ARGV[1], ARGV[2], tonumber(ARGV[3])
local known = redis.call('HGET', reservations, id)
if known then
  local _, drops, where = parse(known)
  if where == endpoint and drops ~= drops_of(dropped, endpoint) then
    return 0
  end
  take_back(load, dropped, known)
end
charge(load, dropped, reservations, id, endpoint, queued)
return 1
