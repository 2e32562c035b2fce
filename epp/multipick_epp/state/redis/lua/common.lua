-- Shared by all scripts: this text comes before each of them.

-- An endpoint's load is one number, requests in flight * IN_FLIGHT + queued tokens, so that one command changes both.
-- Below 2^53 it is exact here: up to 2^18 requests and 2^35 tokens.
local IN_FLIGHT = 2^35

-- A hash of a few hundred short fields is kept as a list, and searched from its start each time, unless it has a long
-- value. This field is no endpoint and no reservation.
local TABLE = ''

local function keep_as_table(hash)
  redis.call('HSETNX', hash, TABLE, 'This value is longer than the 64 bytes up to which a hash may be kept as a list.')
end

-- How often the endpoint was dropped: charges from before the last time are void.
local function drops_of(dropped, endpoint)
  return redis.call('HGET', dropped, endpoint) or '0'
end

-- A reservation's record: queued tokens, the endpoint's drops when it was charged, the endpoint.
local function record_of(queued, drops, endpoint)
  return string.format('%d %s %s', queued, drops, endpoint)
end

local function parse(record)
  local queued, drops, endpoint = string.match(record, '^(%d+) (%d+) (.*)$')
  return tonumber(queued), drops, endpoint
end

local function take_back(load, dropped, record)
  local queued, drops, endpoint = parse(record)
  if drops == drops_of(dropped, endpoint) then
    redis.call('HINCRBY', load, endpoint, -IN_FLIGHT - queued)
  end
end
