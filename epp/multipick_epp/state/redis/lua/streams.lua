-- Shared by all scripts: this text comes before each of them, and before what only some share.

-- No name and no value of ours is as long, in bytes, but for blocks and entries of streams. What is goes, or is left
-- out: whoever reads its key would have to wait for all of it.
local LONGEST = 4096

-- What a reply has, in groups of so many, but for those with something longer: `drop` is given the first of each.
local function sound_of(found, group, drop)
  local sound = {}
  for i = 1, #found, group do
    if #found[i] > LONGEST or #found[i + group - 1] > LONGEST then
      drop(found[i])
    else
      for part = i, i + group - 1 do
        sound[#sound + 1] = found[part]
      end
    end
  end
  return sound
end

local function leave() end  -- for who reads only

-- A key of the wrong type, or a stream that can take no more, is of no use to anybody: it goes, and the call is made
-- again. The second value is whether that was so.
local function anew(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then
    return reply, false
  end
  if string.find(reply.err, 'WRONGTYPE', 1, true) or string.find(reply.err, 'stream has exhausted', 1, true) then
    redis.call('UNLINK', key)
  end
  return redis.call(command, key, ...), true  -- raises whatever else it was
end

-- A key that is no hash, or has more fields than any of ours, is not what we wrote: it goes, and is made again.
local function make_sound(hash, fields_at_most)
  local fields = redis.pcall('HLEN', hash)
  local wrong_type = type(fields) == 'table' and string.find(fields.err, 'WRONGTYPE', 1, true)
  if wrong_type or (type(fields) == 'number' and fields > fields_at_most) then
    redis.call('UNLINK', hash)
  end
end

-- One entry more, in a stream that is kept at about so many.
local function tell(stream, entries, ...)
  anew('XADD', stream, 'MAXLEN', '~', entries, '*', ...)
end

