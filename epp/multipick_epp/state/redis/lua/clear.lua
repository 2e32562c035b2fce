-- Empties the caches that have not seen batch `seq`, in which the engine dropped its cache.
-- KEYS: log, the endpoint's fence; then the sets of the caches
-- ARGV: entries that the log keeps, epoch, seq, seconds after which a cache that nobody keeps alive expires; the caches
-- Returns a code: Applied.
local STALE, DUPLICATE, NEW, GAP = -1, 0, 1, 2
local log, fence = KEYS[1], KEYS[2]
local epoch, seq = tonumber(ARGV[2]), tonumber(ARGV[3])
local known = redis.call('HMGET', fence, 'epoch', 'last')
if not known[1] or epoch > tonumber(known[1]) then
  return GAP
end
if epoch < tonumber(known[1]) then
  return STALE
end
local newest = tonumber(known[2])
local entry = {}
for i = 3, #KEYS do
  local cache = ARGV[i + 2]
  if tonumber(redis.call('HGET', fence, cache) or seq) < seq then
    redis.call('UNLINK', KEYS[i])
    redis.call('SADD', KEYS[i], '')
    redis.call('EXPIRE', KEYS[i], ARGV[4])
    redis.call('HSET', fence, cache, seq - 1)  -- what the same batch stored afterwards is still to come
    entry[#entry + 1] = 'void'
    entry[#entry + 1] = cache
  end
end
if #entry == 0 and seq <= newest then
  return DUPLICATE
end
if seq > newest then
  redis.call('HSET', fence, 'last', seq)
end
if #entry > 0 then
  redis.call('XADD', log, 'MAXLEN', '~', ARGV[1], '*', unpack(entry))
end
return seq > newest + 1 and GAP or NEW
