-- Writes deltas, each if its endpoint's fence lets it (the rules are in fence.py), to the caches' sets and to the log.
-- KEYS: log; then of each delta: the endpoint's fence, the cache's set
-- ARGV: entries that the log keeps, caches of an endpoint at most, seconds after which a cache that nobody keeps alive
--   expires; then of each delta: cache, epoch, first, last, number of stored and of removed keys, the record, which
--   ends in these keys, 8 bytes each
-- Returns a code for each delta: Applied.
local REFUSED, STALE, DUPLICATE, NEW, GAP = -2, -1, 0, 1, 2
local FENCE_FIELDS = 3
local codes, entry = {}, {}

local function cut(record, at, count)
  local keys = {}
  for i = 1, count do
    keys[i] = string.sub(record, at + 1, at + 8)
    at = at + 8
  end
  return keys, at
end

local function write(set, record, stored, removed)
  local keys, at = cut(record, #record - 8 * (stored + removed), stored)
  keys[#keys + 1] = ''  -- a set that lost this member was evicted or has expired
  redis.call('SADD', set, unpack(keys))
  if removed > 0 then
    redis.call('SREM', set, unpack((cut(record, at, removed))))
  end
  entry[#entry + 1] = 'delta'
  entry[#entry + 1] = record
end

for i = 1, (#KEYS - 1) / 2 do
  local fence, set = KEYS[2 * i], KEYS[2 * i + 1]
  local a = 7 * i - 3
  local cache, record = ARGV[a], ARGV[a + 6]
  local epoch, first, last = tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3])
  local known = redis.call('HMGET', fence, 'epoch', 'last', 'base', cache)
  local code
  if not known[1] or epoch > tonumber(known[1]) then
    code = GAP
  elseif epoch < tonumber(known[1]) then
    code = STALE
  else
    local newest, seen = tonumber(known[2]), tonumber(known[4] or known[3])
    if first <= seen and last <= seen then
      code = DUPLICATE
    elseif not known[4] and redis.call('HLEN', fence) - FENCE_FIELDS >= tonumber(ARGV[2]) then
      code = REFUSED
    else
      code = NEW
      if first > newest + 1 or (known[4] and redis.call('EXISTS', set) == 0) then
        code = GAP
      end
      write(set, record, tonumber(ARGV[a + 4]), tonumber(ARGV[a + 5]))
      if not known[4] then
        redis.call('EXPIRE', set, ARGV[3])
      end
      if last > seen or not known[4] then
        redis.call('HSET', fence, cache, math.max(last, seen))
      end
      if last > newest then
        redis.call('HSET', fence, 'last', last)
      end
    end
  end
  codes[i] = code
end
if #entry > 0 then
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', unpack(entry))
end
return codes
