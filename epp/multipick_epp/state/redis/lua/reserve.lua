-- Charges the cheapest candidate of one request.
-- KEYS: load, this replica's reservations, dropped
-- ARGV: reservation; for all candidates, each as i64: new tokens, unseen queued tokens, unseen in flight; the endpoints
-- Returns the winner's place, from 0, and each candidate's load before the charge.
local load, reservations, dropped = KEYS[1], KEYS[2], KEYS[3]
local id = ARGV[1]
local count = #ARGV - 2

local function weigh()
  local figures = {struct.unpack('<' .. string.rep('i8', 3 * count), ARGV[2])}
  local loads = redis.call('HMGET', load, unpack(ARGV, 3))
  local least, winner = math.huge, 1
  for i = 1, count do
    local sum = (loads[i] or 0) + 0  -- half the time of tonumber
    loads[i] = sum
    local queued = sum % IN_FLIGHT
    local in_flight = (sum - queued) / IN_FLIGHT
    local f = 3 * i
    local score = (queued + figures[f - 1] + figures[f - 2]) * (in_flight + figures[f] + 1)
    if score < least then
      least, winner = score, i
    end
  end
  return winner, figures[3 * winner - 2], loads
end

local winner, new_tokens, loads = weigh()
local endpoint = ARGV[winner + 2]
local drops = drops_of(dropped, endpoint)
if redis.call('HSETNX', reservations, id, record_of(new_tokens, drops, endpoint)) == 1 then
  redis.call('HINCRBY', load, endpoint, IN_FLIGHT + new_tokens)
  return {winner - 1, loads}
end

-- The reservation is known: it stays where it is, if that is a candidate still and was not dropped since.
local known = redis.call('HGET', reservations, id)
local _, drops_then, where = parse(known)
if drops_then == drops_of(dropped, where) then
  for i = 1, count do
    if ARGV[i + 2] == where then
      return {i - 1, loads}
    end
  end
  take_back(load, dropped, known)
  winner, new_tokens, loads = weigh()
  endpoint = ARGV[winner + 2]
  drops = drops_of(dropped, endpoint)
end
redis.call('HSET', reservations, id, record_of(new_tokens, drops, endpoint))
redis.call('HINCRBY', load, endpoint, IN_FLIGHT + new_tokens)
return {winner - 1, loads}
