-- Charges the cheapest candidate of one request.
-- KEYS: load, this replica's reservations, dropped
-- ARGV: reservation; for all candidates, each as i64: new tokens, unseen queued tokens, unseen in flight; the endpoints
-- Returns the winner's place, from 0, then each candidate's load before the charge.
local load, reservations, dropped = KEYS[1], KEYS[2], KEYS[3]
local id = ARGV[1]
local count = #ARGV - 2

local function weigh()
  local figures = {struct.unpack('<' .. string.rep('i8', 3 * count), ARGV[2])}
  local reply = redis.call('HMGET', load, unpack(ARGV, 3))
  local least, winner = math.huge, 1
  for i = 1, count do
    local sum = tonumber(reply[i] or 0)
    reply[i] = sum
    local in_flight = math.floor(sum / IN_FLIGHT)
    local queued = sum - in_flight * IN_FLIGHT
    local f = 3 * i
    local score = (queued + figures[f - 1] + figures[f - 2]) * (in_flight + figures[f] + 1)
    if score < least then
      least, winner = score, i
    end
  end
  return winner, figures[3 * winner - 2], reply
end

local winner, new_tokens, reply = weigh()
local endpoint = ARGV[winner + 2]
local drops = drops_of(dropped, endpoint)
if redis.call('HSETNX', reservations, id, record_of(new_tokens, drops, endpoint)) == 1 then
  redis.call('HINCRBY', load, endpoint, IN_FLIGHT + new_tokens)
  table.insert(reply, 1, winner - 1)
  return reply
end

-- The reservation is known: it stays where it is, if that is a candidate still and was not dropped since.
local known = redis.call('HGET', reservations, id)
local _, drops_then, where = parse(known)
if drops_then == drops_of(dropped, where) then
  for i = 1, count do
    if ARGV[i + 2] == where then
      table.insert(reply, 1, i - 1)
      return reply
    end
  end
  take_back(load, dropped, known)
  winner, new_tokens, reply = weigh()
  endpoint = ARGV[winner + 2]
  drops = drops_of(dropped, endpoint)
end
redis.call('HSET', reservations, id, record_of(new_tokens, drops, endpoint))
redis.call('HINCRBY', load, endpoint, IN_FLIGHT + new_tokens)
table.insert(reply, 1, winner - 1)
return reply
