-- Empties the caches that have not seen batch `seq`, in which the engine dropped its cache.
-- KEYS: log, the endpoint's fence, its notes; then the sets of the caches
-- ARGV: entries that the log keeps, epoch, seq, seconds after which a cache that nobody keeps alive expires; the caches
-- Returns a code: Applied.
local STALE, DUPLICATE, NEW, GAP = -1, 0, 1, 2
local log, fence, notes = KEYS[1], KEYS[2], KEYS[3]
local epoch, seq = tonumber(ARGV[2]), tonumber(ARGV[3])
local fields = anew('HMGET', fence, 'epoch', 'last')
local known, newest = epoch_of(fields[1]), whole(fields[2])
if not known then
  return GAP
end
if epoch ~= known then
  return STALE
end
local entry = {}
for i = 4, #KEYS do
  local cache = ARGV[i + 1]
  local seen = redis.call('HGET', fence, cache)
  if seen and (whole(seen) or -1) < seq then
    redis.call('UNLINK', KEYS[i])
    redis.call('SADD', KEYS[i], '')
    redis.call('EXPIRE', KEYS[i], ARGV[4])
    redis.call('HSET', fence, cache, seq - 1)  -- what the same batch stored afterwards is still to come
    entry[#entry + 1] = 'void'
    entry[#entry + 1] = cache
  end
end
if #entry == 0 and newest and seq <= newest then
  return DUPLICATE
end
if not newest or seq > newest then
  redis.call('HSET', fence, 'last', seq)
end
if #entry > 0 then
  tell(log, ARGV[1], unpack(entry))
end
if newest and seq <= newest + 1 then
  void_position(notes)
  return NEW
end
anew('HDEL', notes, 'position', '')
return GAP
