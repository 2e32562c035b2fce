-- Renews an ingest process's lease.
-- KEYS: leases, generation of the store's data
-- ARGV: this replica, the name of a new generation if there is none
-- Returns the generation, and each lease's name and stamp. (Releases before this one go by the stamps' ages.)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local generation = anew('GET', KEYS[2])
if not generation then
  generation = ARGV[2]
  redis.call('SET', KEYS[2], generation)
end
anew('ZADD', KEYS[1], now, ARGV[1])
return {generation, redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')}
