-- Makes an endpoint's epoch known and voids what was known of its caches.
-- KEYS: log, endpoints, the endpoint's fence; then the sets of all its caches
-- ARGV: entries that the log keeps, endpoint, epoch, sequence so far, 1 to void also what the same epoch holds,
--   seconds after which a fence that nobody keeps alive expires
-- Returns 1, 0 where a younger epoch is known, -1 where the endpoint has other caches than the caller thought.
local log, endpoints, fence = KEYS[1], KEYS[2], KEYS[3]
local epoch = tonumber(ARGV[3])
local known = tonumber(redis.call('HGET', fence, 'epoch') or '-1')
if epoch < known then
  return 0
end
if epoch == known and ARGV[5] == '0' then
  return 1
end
local fields = redis.call('HLEN', fence)
if fields ~= 0 and fields ~= #KEYS then  -- 3 fields and the caches; 3 keys and their sets
  return -1
end
if #KEYS > 3 then
  redis.call('UNLINK', fence, unpack(KEYS, 4))
end
redis.call('HSET', fence, 'epoch', ARGV[3], 'last', ARGV[4], 'base', ARGV[4])
redis.call('EXPIRE', fence, ARGV[6])
redis.call('SADD', endpoints, ARGV[2])
redis.call('XADD', log, 'MAXLEN', '~', ARGV[1], '*', 'begin', ARGV[2])
return 1
