-- Where the streams are, and who ingests.
-- KEYS: generation of the store's data, log, hints, leases of the ingest
-- ARGV: leases that a pool has at most; identities of log entries, 0-0 for one before the first
-- Returns the generation, empty where there is none; the newest entry of each stream, 0-0 where there is none, empty
-- where the key is no stream; 1 where the log has all these entries; each lease's name and stamp.
local function newest(stream, from, to)
  local found = redis.pcall('XREVRANGE', stream, from, to, 'COUNT', 1)
  if found.err then
    return ''
  end
  return found[1] and found[1][1] or '0-0'
end

local generation = redis.pcall('GET', KEYS[1])
if type(generation) ~= 'string' or #generation > LONGEST then
  generation = ''
end
local continues = 1
for i = 2, #ARGV do
  local at = ARGV[i]
  if at ~= '0-0' and newest(KEYS[2], at, at) ~= at then
    continues = 0
  end
end
local leases = redis.pcall('ZRANGE', KEYS[4], 0, ARGV[1] - 1, 'WITHSCORES')
local sound = sound_of(leases, 2, leave)  -- none where it is no such key
return {generation, newest(KEYS[2], '+', '-'), newest(KEYS[3], '+', '-'), continues, sound}
