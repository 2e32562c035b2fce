-- Releases some reservations of a replica whose lease ran out. Called again until it returns 0.
-- KEYS: load, the dead replica's reservations, dropped, replicas
-- ARGV: the dead replica, milliseconds after which a lease has run out, about how many reservations
local load, reservations, dropped, replicas = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local seen = redis.call('ZSCORE', replicas, ARGV[1])
if not seen or now - seen < tonumber(ARGV[2]) then
  return 0
end
local found = redis.call('HSCAN', reservations, '0', 'COUNT', ARGV[3])[2]
for i = 1, #found, 2 do
  take_back(load, dropped, found[i + 1])
  redis.call('HDEL', reservations, found[i])
end
if redis.call('EXISTS', reservations) == 0 then
  redis.call('ZREM', replicas, ARGV[1])
end
return #found / 2
