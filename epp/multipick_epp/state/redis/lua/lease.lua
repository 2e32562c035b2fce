-- Renews an ingest process's lease.
-- KEYS: leases, generation of the store's data
-- ARGV: this replica, the name of a new generation if there is none, leases that a pool has at most
-- Returns the generation, and each lease's name and stamp. (Releases before this one go by the stamps' ages.)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local generation = anew('GET', KEYS[2])
if not generation or #generation > LONGEST then
  generation = ARGV[2]
  redis.call('SET', KEYS[2], generation)
end
anew('ZADD', KEYS[1], now, ARGV[1])
local leases = redis.call('ZRANGE', KEYS[1], 0, ARGV[3], 'WITHSCORES')
if #leases > 2 * ARGV[3] then  -- not what we wrote: whoever lives renews his own
  redis.call('UNLINK', KEYS[1])
  redis.call('ZADD', KEYS[1], now, ARGV[1])
  leases = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
end
local sound = sound_of(leases, 2, function(name)
  redis.call('ZREM', KEYS[1], name)
end)
return {generation, sound}
