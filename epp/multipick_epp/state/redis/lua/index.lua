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

-- A fence has no more fields.
local FIELDS_AT_MOST = 4096

-- The names of caches among a fence's fields; `drop` is given what is longer than any. What else another version keeps
-- there counts as nothing.
local function caches_among(fields, drop)
  local caches = {}
  for _, field in ipairs(sound_of(fields, 1, drop)) do
    if string.sub(field, 1, 1) == '[' then
      caches[#caches + 1] = field
    end
  end
  return caches
end

-- The names of a fence's caches. What is not as we write it goes: its owner writes it again.
local function caches_of(fence)
  make_sound(fence, FIELDS_AT_MOST)
  return caches_among(redis.call('HKEYS', fence), function(field)
    redis.call('HDEL', fence, field)
  end)
end

-- Whether the fence has a cache that is not among ARGV from `first` on.
local function has_others(fence, first)
  local named = {}
  for i = first, #ARGV do
    named[ARGV[i]] = true
  end
  for _, cache in ipairs(caches_of(fence)) do
    if not named[cache] then
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
