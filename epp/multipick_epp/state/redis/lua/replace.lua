-- Voids what is known of an endpoint's caches, for the truth that follows.
-- KEYS: log, endpoints, the endpoint's fence, its notes; then the sets of all its caches
-- ARGV: entries that the log keeps, endpoint, epoch, sequence so far, seconds after which what nobody keeps alive
--   expires; then the caches
-- Returns 1, 0 where somebody else has taken the endpoint over, -1 where it has other caches than the caller thought.
local log, endpoints, fence, notes = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local SETS, CACHES = 5, 6
local known = epoch_of(anew('HGET', fence, 'epoch'))
if known and known ~= tonumber(ARGV[3]) then
  return 0
end
if has_others(fence, CACHES) then
  return -1
end
for i = 0, #ARGV - CACHES do
  redis.call('UNLINK', KEYS[SETS + i])
  redis.call('HDEL', fence, ARGV[CACHES + i])
end
redis.call('UNLINK', notes)
redis.call('HSET', notes, '', '', 'position', AMID_A_WRITE)
redis.call('EXPIRE', notes, ARGV[5])
redis.call('HSET', fence, 'epoch', ARGV[3], 'last', ARGV[4], 'base', ARGV[4])
redis.call('EXPIRE', fence, ARGV[5])
anew('SADD', endpoints, ARGV[2])
tell(log, ARGV[1], 'begin', ARGV[2])
return 1
