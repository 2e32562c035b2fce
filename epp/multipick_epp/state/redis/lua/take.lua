-- Makes a replica the one who writes an endpoint, under a new epoch: whoever did before is fenced off. Voids nothing.
-- A patient one takes nothing while the owner is amid a write, so that there is something to go on from.
-- KEYS: log, endpoints, modes, owners' endpoints, the endpoint's fence, its notes
-- ARGV: entries that the log keeps, endpoint, the replica, the mode of an endpoint that is not known well and its
--   record, the record of the owner, seconds after which what nobody keeps alive expires, 1: the owner before is alive,
--   1: patient, the time in ms
-- Returns the epoch, the last sequence (-1: none), the position that one may go on from (empty: from none), the mode;
-- nothing where there will be a position, if its owner lives.
local log, endpoints, modes, holders, fence, notes = unpack(KEYS)
local endpoint = ARGV[2]
local fields = anew('HMGET', fence, 'epoch', 'last')
local known, last = epoch_of(fields[1]), whole(fields[2])
if last and (last < -1 or last >= 2^52) then
  last = nil
end
local rest
if known then
  local position = anew('HGET', notes, 'position')
  local its_epoch, after = string.match(position or '', '^(%d+) (.+)$')
  if last and redis.call('HEXISTS', notes, '') == 1 then
    if tonumber(its_epoch) == known then
      rest = after
    elseif position == AMID_A_WRITE and ARGV[9] == '1' then
      return {}
    end
  end
elseif not fields[1] and redis.call('HLEN', fence) == 0 then  -- a new endpoint, of which there is nothing to be known
  redis.call('UNLINK', notes)
  redis.call('HSET', notes, '', '')
  redis.call('EXPIRE', notes, ARGV[7])
  redis.call('HSET', fence, 'last', -1, 'base', -1)
  known, last = 0, -1
else
  known = 0
end
-- Also above what a store knew that has lost all since: an owner of then must not pass for the one of now.
local epoch = string.format('%.0f', math.max(known + 1, tonumber(ARGV[10])))
redis.call('HSET', fence, 'epoch', epoch)
redis.call('EXPIRE', fence, ARGV[7])
if rest then
  redis.call('HSET', notes, 'position', epoch .. ' ' .. rest)
else
  anew('HDEL', notes, 'position')
end
anew('SADD', endpoints, endpoint)
anew('HSET', holders, endpoint, ARGV[3])
redis.call('EXPIRE', holders, ARGV[7])
local entry = {'owner', ARGV[6]}
local mode = anew('HGET', modes, endpoint)
-- Nobody followed it since the owner before died; and what can't be gone on from has to be told anew.
if mode and mode ~= ARGV[4] and not (rest and ARGV[8] == '1') then
  mode = ARGV[4]
  redis.call('HSET', modes, endpoint, mode)
  entry[3], entry[4] = 'mode', ARGV[5]
end
tell(log, ARGV[1], unpack(entry))
return {epoch, string.format('%.0f', last or -1), rest or '', mode or ''}
