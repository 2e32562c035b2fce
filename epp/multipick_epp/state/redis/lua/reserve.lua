-- Charges the cheapest candidate of one request.
-- KEYS: load, this replica's reservations, dropped, routed
-- ARGV: reservation; as i64: new tokens where an equal prompt went, then of all candidates the new tokens, the unseen
-- queued tokens, the unseen in flight; the prompt, empty where it is not to be compared; the endpoints
-- Returns the winner's place, from 0, its new tokens, and each candidate's load before the charge.
local ROUTED_S = 2  -- after so long, every picker has long heard of it by the stream of hints
local ROUTED_PROMPTS = 4096  -- one key for all of them: to expire one each costs more than all the rest
local load, reservations, dropped = KEYS[1], KEYS[2], KEYS[3]
local id, prompt = ARGV[1], ARGV[3]
local count = #ARGV - 3
local QUEUED, FLYING = 1 + count, 1 + 2 * count  -- where these columns begin; the new tokens begin at 1
local figures = {struct.unpack('<' .. string.rep('i8', 1 + 3 * count), ARGV[2])}
local routed = prompt ~= '' and redis.call('HGET', KEYS[4], prompt)

if routed then
  local again = figures[1]
  for i = 1, count do
    if figures[1 + i] > again and string.find(routed, ' ' .. ARGV[i + 3] .. ' ', 1, true) then
      figures[1 + i] = again
    end
  end
end

local function weigh()
  local loads = redis.call('HMGET', load, unpack(ARGV, 4))
  local least, winner = math.huge, 1
  for i = 1, count do
    local sum = (loads[i] or 0) + 0  -- half the time of tonumber
    loads[i] = sum
    local queued = sum % IN_FLIGHT
    local in_flight = (sum - queued) / IN_FLIGHT
    local score = (queued + figures[QUEUED + i] + figures[1 + i]) * (in_flight + figures[FLYING + i] + 1)
    if score < least then
      least, winner = score, i
    end
  end
  return winner, figures[1 + winner], loads
end

local function charged(winner, new_tokens, loads)
  local endpoint = ARGV[winner + 3]
  redis.call('HINCRBY', load, endpoint, IN_FLIGHT + new_tokens)
  if prompt ~= '' and new_tokens > figures[1] then
    redis.call('HSET', KEYS[4], prompt, (routed or ' ') .. endpoint .. ' ')
    local prompts = routed and 0 or redis.call('HLEN', KEYS[4])
    if prompts == 1 then
      keep_as_table(KEYS[4])
      redis.call('EXPIRE', KEYS[4], ROUTED_S)
    elseif prompts > ROUTED_PROMPTS then
      redis.call('UNLINK', KEYS[4])
    end
  end
  return {winner - 1, new_tokens, loads}
end

local winner, new_tokens, loads = weigh()
local endpoint = ARGV[winner + 3]
local drops = drops_of(dropped, endpoint)
if redis.call('HSETNX', reservations, id, record_of(new_tokens, drops, endpoint)) == 1 then
  return charged(winner, new_tokens, loads)
end

-- The reservation is known: it stays where it is, if that is a candidate still and was not dropped since.
local known = redis.call('HGET', reservations, id)
local queued, drops_then, where = parse(known)
if drops_then == drops_of(dropped, where) then
  for i = 1, count do
    if ARGV[i + 3] == where then
      return {i - 1, queued, loads}
    end
  end
  take_back(load, dropped, known)
  winner, new_tokens, loads = weigh()
  endpoint = ARGV[winner + 3]
  drops = drops_of(dropped, endpoint)
end
redis.call('HSET', reservations, id, record_of(new_tokens, drops, endpoint))
return charged(winner, new_tokens, loads)
