-- Writes deltas, each if its endpoint's fence lets it (the rules are in fence.py), to the caches' sets and to the log.
-- KEYS: log; then of each delta: the endpoint's fence, its notes, the cache's set
-- ARGV: entries that the log keeps, caches of an endpoint at most, seconds after which a cache that nobody keeps alive
--   expires; then of each delta: cache, epoch, first, last, number of stored and of removed keys, the record, which
--   ends in these keys, 8 bytes each
-- Returns a code for each delta: Applied.
local REFUSED, STALE, DUPLICATE, NEW, GAP = -2, -1, 0, 1, 2
local codes, entry = {}, {}

local function cut(record, at, count)
  local keys = {}
  for i = 1, count do
    keys[i] = string.sub(record, at + 1, at + 8)
    at = at + 8
  end
  return keys, at
end

-- Returns whether the set was of another type before, and so is not whole now.
local function write(set, record, stored, removed)
  local keys, at = cut(record, #record - 8 * (stored + removed), stored)
  keys[#keys + 1] = ''  -- a set that lost this member was evicted or has expired
  local _, overwritten = anew('SADD', set, unpack(keys))
  if removed > 0 then
    redis.call('SREM', set, unpack((cut(record, at, removed))))
  end
  entry[#entry + 1] = 'delta'
  entry[#entry + 1] = record
  return overwritten
end

for i = 1, (#KEYS - 1) / 3 do
  local fence, notes, set = KEYS[3 * i - 1], KEYS[3 * i], KEYS[3 * i + 1]
  local a = 7 * i - 3
  local cache, record = ARGV[a], ARGV[a + 6]
  local epoch, first, last = tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3])
  local fields = anew('HMGET', fence, 'epoch', 'last', 'base', cache)
  local known, newest, seen = epoch_of(fields[1]), whole(fields[2]), whole(fields[4] or fields[3])
  local is_new = not fields[4]
  if seen and newest and seen > newest then  -- no owner writes that: it would make what comes look like what has come
    seen = nil
  end
  local code
  if not known then
    code = GAP
  elseif epoch ~= known then
    code = STALE
  elseif seen and first <= seen and last <= seen then
    code = DUPLICATE
  elseif is_new and redis.call('HLEN', fence) >= tonumber(ARGV[2]) and #caches_of(fence) >= tonumber(ARGV[2]) then
    code = REFUSED
  else
    code = NEW
    if not newest or not seen or first > newest + 1 or (not is_new and redis.call('EXISTS', set) == 0) then
      code = GAP
    end
    if is_new then
      redis.call('UNLINK', set)  -- of a fence that was lost
    end
    if write(set, record, tonumber(ARGV[a + 4]), tonumber(ARGV[a + 5])) then
      code = GAP
    end
    if is_new then
      redis.call('EXPIRE', set, ARGV[3])
    end
    if is_new or not seen or last > seen then
      redis.call('HSET', fence, cache, math.max(last, seen or -1))
    end
    if not newest or last > newest then
      redis.call('HSET', fence, 'last', last)
    end
  end
  if code == GAP then
    anew('HDEL', notes, 'position', '')
  elseif code == NEW then
    void_position(notes)
  end
  codes[i] = code
end
if #entry > 0 then
  tell(KEYS[1], ARGV[1], unpack(entry))
end
return codes
