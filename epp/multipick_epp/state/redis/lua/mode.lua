-- How well an endpoint's cache is known, by its owner.
-- KEYS: log, modes, the endpoint's fence
-- ARGV: entries that the log keeps, endpoint, epoch, mode, the record
-- Returns a code: Applied.
local STALE, DUPLICATE, NEW, GAP = -1, 0, 1, 2
local known = whole(anew('HGET', KEYS[3], 'epoch'))
if not known then
  return GAP
end
if known ~= tonumber(ARGV[3]) then
  return STALE
end
if anew('HGET', KEYS[2], ARGV[2]) == ARGV[4] then
  return DUPLICATE
end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[4])
tell(KEYS[1], ARGV[1], 'mode', ARGV[5])
return NEW
