-- How well an endpoint's cache is known, by its owner, who says with it that it is one.
-- KEYS: log, modes, owners' endpoints, the endpoint's fence
-- ARGV: entries that the log keeps, endpoint, epoch, the mode and its record, the replica and its record, how many
--   endpoints there are at most
-- Returns a code: Applied.
local STALE, DUPLICATE, NEW, GAP = -1, 0, 1, 2
local log, modes, holders, fence = unpack(KEYS)
local known = epoch_of(anew('HGET', fence, 'epoch'))
if not known then
  return GAP
end
if known ~= tonumber(ARGV[3]) then
  return STALE
end
local entry = {}
local function say(hash, value, kind, record)
  make_sound(hash, tonumber(ARGV[8]))  -- each owner says his own again
  if redis.call('HGET', hash, ARGV[2]) ~= value then
    redis.call('HSET', hash, ARGV[2], value)
    entry[#entry + 1] = kind
    entry[#entry + 1] = record
  end
end
say(holders, ARGV[6], 'owner', ARGV[7])
say(modes, ARGV[4], 'mode', ARGV[5])
if #entry == 0 then
  return DUPLICATE
end
tell(log, ARGV[1], unpack(entry))
return NEW
