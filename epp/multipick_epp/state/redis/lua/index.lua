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
