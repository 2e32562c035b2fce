-- Shared by the scripts of the loads: this text comes before each of them.

-- An endpoint's load is one number, requests in flight * IN_FLIGHT + queued tokens, so that one command changes both.
-- Below MOST it is exact here: up to 2^18 requests and 2^34 tokens. Anything else in its place is junk, and counts as 0.
-- Its contexts are another number, in the field whose name ends so: requests that are not prefilled * IN_FLIGHT + prompt
-- tokens of those in flight, as far as pickers account for them.
local IN_FLIGHT = 2^35
local MOST = 2^53
local CONTEXTS = ' contexts'

-- A hash of a few hundred short fields is kept as a list, and searched from its start each time, unless it has a long
-- value. This field is no endpoint and no reservation.
local TABLE = ''

local function keep_as_table(hash)
  redis.call('HSETNX', hash, TABLE, 'This value is longer than the 64 bytes up to which a hash may be kept as a list.')
end

-- The fields of a hash and their values, in turn, but for those that are longer than any of ours, which go.
local function sound_fields(hash)
  return sound_of(redis.call('HGETALL', hash), 2, function(field)
    redis.call('HDEL', hash, field)
  end)
end

-- The figure that a field has; nil where that is none.
local function figure_of(text)
  local figure = #text < 17 and string.find(text, '^%d+$') and tonumber(text)
  return figure and figure < MOST and figure or nil
end

-- Changes a figure. One that is none, or would be below 0, was not made by us alone: it begins anew from 0.
local function add(hash, field, change)
  local figure = redis.pcall('HINCRBY', hash, field, change)
  if type(figure) ~= 'number' or figure < 0 or figure >= MOST then
    redis.call('HSET', hash, field, math.max(0, tonumber(change)))
  end
end
