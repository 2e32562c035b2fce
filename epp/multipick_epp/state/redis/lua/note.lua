-- Writes what a successor of the endpoint's owner needs, behind the blocks that it belongs to.
-- KEYS: the endpoint's fence, its notes
-- ARGV: epoch, seconds after which new notes expire (0: those that are there go on), the position with its epoch (empty:
--   there is none; AMID_A_WRITE: more notes follow), number of fields to set, these fields and their values, the fields
--   to delete
-- Returns a code: Applied. A gap where something that was noted is lost: only `replace` makes the notes whole again.
local STALE, NEW, GAP = -1, 1, 2
local fence, notes = KEYS[1], KEYS[2]
local known = epoch_of(anew('HGET', fence, 'epoch'))
if known and known ~= tonumber(ARGV[1]) then
  return STALE
end
if not known or anew('HEXISTS', notes, '') == 0 then
  return GAP
end
if ARGV[2] ~= '0' then
  redis.call('UNLINK', notes)
  redis.call('HSET', notes, '', '', 'position', AMID_A_WRITE)
  redis.call('EXPIRE', notes, ARGV[2])
end
local first_gone = 5 + 2 * tonumber(ARGV[4])
if first_gone > 5 then
  redis.call('HSET', notes, unpack(ARGV, 5, first_gone - 1))
end
if ARGV[first_gone] then
  redis.call('HDEL', notes, unpack(ARGV, first_gone))
end
if ARGV[3] ~= '' then
  redis.call('HSET', notes, 'position', ARGV[3])
else
  redis.call('HDEL', notes, 'position')
end
return NEW
