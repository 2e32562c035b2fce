-- Tells which endpoints stand as left out.
-- KEYS: the endpoints that are
-- ARGV: endpoints that a pool has at most
-- Returns each one's name, and how often in a row it was left out.
local outliers = KEYS[1]
make_sound(outliers, tonumber(ARGV[1]))
return sound_fields(outliers)
