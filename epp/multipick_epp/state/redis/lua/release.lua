-- Takes a reservation's charge back.
-- KEYS: load, this replica's reservations, dropped
-- ARGV: reservation
local known = redis.call('HGET', KEYS[2], ARGV[1])
if not known then
  return 0
end
take_back(KEYS[1], KEYS[3], known)
redis.call('HDEL', KEYS[2], ARGV[1])
return 1
