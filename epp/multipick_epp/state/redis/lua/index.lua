-- Shared by the scripts of the index: this text comes before each of them. What they find is input: another version may
-- write beside this one, and anybody else.

-- A whole number that somebody wrote, below 2^53 as ours are; nil for anything else.
local function whole(text)
  local number = text and #text <= 16 and string.match(text, '^%-?%d+$') and tonumber(text)
  if number and number < 2^53 then
    return number
  end
end

-- An epoch that somebody wrote; nil for what can be none.
local function epoch_of(text)
  local number = whole(text)
  if number and number >= 0 and number < 2^52 then
    return number
  end
end

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

-- One entry more, in a stream that is kept at about so many.
local function tell(stream, entries, ...)
  anew('XADD', stream, 'MAXLEN', '~', entries, '*', ...)
end

-- Whether the fence has a cache that is not among ARGV from `first` on. What else another version keeps there counts
-- as nothing.
local function has_others(fence, first)
  local named = {}
  for i = first, #ARGV do
    named[ARGV[i]] = true
  end
  for _, field in ipairs((anew('HKEYS', fence))) do
    if string.sub(field, 1, 1) == '[' and not named[field] then
      return true
    end
  end
  return false
end

-- Stands for the position while what belongs to one is being written: the next owner waits for its end, if that comes.
local AMID_A_WRITE = 'amid a write'

-- What was noted is the position of something else than stands there now.
local function void_position(notes)
  if anew('HEXISTS', notes, '') == 1 then
    redis.call('HSET', notes, 'position', AMID_A_WRITE)
  end
end
