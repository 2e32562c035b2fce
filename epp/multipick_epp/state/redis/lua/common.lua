-- Shared by all scripts: this text comes before each of them.

-- A reservation's record is "<queued tokens> <times its endpoint was dropped before> <endpoint>".
local function parse(record)
  local queued, drops, endpoint = string.match(record, '^(%d+) (%d+) (.*)$')
  return tonumber(queued), drops, endpoint
end

-- Adds to an endpoint's load; a figure that is 0 has no field, so that the hash is as small as the pool.
local function add(load, endpoint, queued, in_flight)
  if queued ~= 0 and redis.call('HINCRBY', load, 'q' .. endpoint, queued) == 0 then
    redis.call('HDEL', load, 'q' .. endpoint)
  end
  if in_flight ~= 0 and redis.call('HINCRBY', load, 'n' .. endpoint, in_flight) == 0 then
    redis.call('HDEL', load, 'n' .. endpoint)
  end
end

local function drops_of(dropped, endpoint)
  return redis.call('HGET', dropped, endpoint) or '0'
end

-- Takes a record's charge back, unless its endpoint was dropped since, and its load with it.
local function take_back(load, dropped, record)
  local queued, drops, endpoint = parse(record)
  if drops == drops_of(dropped, endpoint) then
    add(load, endpoint, -queued, -1)
  end
end

local function charge(load, dropped, reservations, id, endpoint, queued)
  add(load, endpoint, queued, 1)
  redis.call('HSET', reservations, id, string.format('%d', queued) .. ' ' .. drops_of(dropped, endpoint) .. ' ' .. endpoint)
end
