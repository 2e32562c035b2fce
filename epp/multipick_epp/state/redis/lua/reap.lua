-- Releases some reservations of a replica whose lease ran out. Called again with the cursor that it returns, until that
-- is 0.
-- KEYS: load, the dead replica's reservations, dropped, replicas
-- ARGV: the dead replica, milliseconds after which a lease has run out, about how many reservations, cursor
-- Returns the next cursor and how many were released.
local load, reservations, dropped, replicas = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local seen = redis.call('ZSCORE', replicas, ARGV[1])
if not seen or now - seen < tonumber(ARGV[2]) then
  return {'0', 0}
end
local reaped = 0
local step = redis.call('HSCAN', reservations, ARGV[4], 'COUNT', ARGV[3])
local found = step[2]
for i = 1, #found, 2 do
  if found[i] ~= TABLE then
    take_back(load, dropped, found[i + 1])
    redis.call('HDEL', reservations, found[i])
    reaped = reaped + 1
  end
end
if step[1] == '0' and redis.call('HLEN', reservations) <= 1 then
  redis.call('UNLINK', reservations)
  redis.call('ZREM', replicas, ARGV[1])
end
return {step[1], reaped}
