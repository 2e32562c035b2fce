-- Shared by all scripts: this text comes before each of them.

-- An endpoint's load is one number, requests in flight * IN_FLIGHT + queued tokens, so that one command changes both.
-- Below 2^53 it is exact here: up to 2^18 requests and 2^35 tokens.
local IN_FLIGHT = 2^35

-- Adds to an endpoint's load. One that is 0 has no field, so that the hash is as small as the pool.
local function add(load, endpoint, amount)
  if redis.call('HINCRBY', load, endpoint, amount) == 0 then
    redis.call('HDEL', load, endpoint)
  end
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
    add(load, endpoint, -IN_FLIGHT - queued)
  end
end
