-- Does what a replica asks for in one turn of its loop, in order.
-- KEYS: load, this replica's reservations, dropped, routed
-- ARGV: of each step its name, then the arguments of the function of that name
-- Returns three figures of each reserve: the winner's place, from 0, its new tokens, and its load before the charge.
local ROUTED_S = 2  -- after so long, every picker has long heard of it by the stream of hints
local ROUTED_PROMPTS = 4096  -- one key for all of them: to expire one each costs more than all the rest
local load, reservations, dropped, routed = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local replies = {}

local function reply(place, new_tokens, load_before)
  local n = #replies
  replies[n + 1], replies[n + 2], replies[n + 3] = place - 1, new_tokens, load_before
end

local function cheapest(names, new, unexplained)
  local count = #names
  local loads = redis.call('HMGET', load, unpack(names))
  local least, winner, its_load = math.huge, 1, 0
  for i = 1, count do
    local sum = (loads[i] or 0) + 0  -- half the time of tonumber
    local queued = sum % IN_FLIGHT
    local in_flight = (sum - queued) / IN_FLIGHT
    if unexplained then
      queued, in_flight = queued + unexplained[i], in_flight + unexplained[count + i]
    end
    local score = (queued + new[i]) * (in_flight + 1)
    if score < least then
      least, winner, its_load = score, i, sum
    end
  end
  return winner, its_load
end

-- An equal prompt goes to this endpoint.
local function hold(prompt, holders, endpoint)
  redis.call('HSET', routed, prompt, (holders or ' ') .. endpoint .. ' ')
  local prompts = holders and 0 or redis.call('HLEN', routed)
  if prompts == 1 then
    keep_as_table(routed)
    redis.call('EXPIRE', routed, ROUTED_S)
  elseif prompts > ROUTED_PROMPTS then
    redis.call('UNLINK', routed)
  end
end

-- Whether the reservation is charged to a candidate already: then it stays there. Otherwise its charge is taken back.
local function stays(id, names)
  local known = redis.call('HGET', reservations, id)
  local queued, drops, where = parse(known)
  if drops == drops_of(dropped, where) then
    for i = 1, #names do
      if names[i] == where then
        reply(i, queued, redis.call('HGET', load, where) + 0)
        return true
      end
    end
    take_back(load, dropped, known)
  end
  return false
end

-- Charges the cheapest candidate of one request. `figures`: the candidates' new tokens, then the new tokens where an
-- equal prompt went; `ends`: the candidates' names, each ended by a zero; `prompt`: empty where it is not to be compared;
-- `explained`: the candidates' unexplained queued tokens, then their unexplained in flight, empty where there are none.
local function reserve(id, figures, ends, prompt, explained)
  local count = #figures / 8 - 1
  local new = {struct.unpack('<' .. string.rep('d', count + 1), figures)}
  local names = {struct.unpack(string.rep('s', count), ends)}
  names[count + 1] = nil  -- where the unpacking ended
  local unexplained = explained ~= '' and {struct.unpack('<' .. string.rep('d', 2 * count), explained)}
  local again = new[count + 1]
  local holders = prompt ~= '' and redis.call('HGET', routed, prompt)
  if holders then
    for i = 1, count do
      if new[i] > again and string.find(holders, ' ' .. names[i] .. ' ', 1, true) then
        new[i] = again
      end
    end
  end

  local winner, its_load = cheapest(names, new, unexplained)
  local record = record_of(new[winner], drops_of(dropped, names[winner]), names[winner])
  if redis.call('HSETNX', reservations, id, record) == 0 then
    if stays(id, names) then
      return
    end
    winner, its_load = cheapest(names, new, unexplained)
    record = record_of(new[winner], drops_of(dropped, names[winner]), names[winner])
    redis.call('HSET', reservations, id, record)
  end
  redis.call('HINCRBY', load, names[winner], IN_FLIGHT + new[winner])
  if prompt ~= '' and new[winner] > again then
    hold(prompt, holders, names[winner])
  end
  reply(winner, new[winner], its_load)
end

-- Makes a reservation's charge what its replica says: after progress, a move, or an outage.
local function charge(id, endpoint, figure)
  local queued = tonumber(figure)
  local drops = drops_of(dropped, endpoint)
  local known = redis.call('HGET', reservations, id)
  if known then
    local before, drops_then, where = parse(known)
    if where == endpoint then
      if drops_then == drops then
        redis.call('HINCRBY', load, endpoint, queued - before)
        redis.call('HSET', reservations, id, record_of(queued, drops, endpoint))
      end
      return
    end
    take_back(load, dropped, known)
  end
  redis.call('HINCRBY', load, endpoint, IN_FLIGHT + queued)
  redis.call('HSET', reservations, id, record_of(queued, drops, endpoint))
end

-- Takes a reservation's charge back.
local function release(id)
  local known = redis.call('HGET', reservations, id)
  if known then
    take_back(load, dropped, known)
    redis.call('HDEL', reservations, id)
  end
end

local at = 1
while ARGV[at] do
  local step = ARGV[at]
  if step == 'reserve' then
    reserve(unpack(ARGV, at + 1, at + 5))
    at = at + 6
  elseif step == 'charge' then
    charge(unpack(ARGV, at + 1, at + 3))
    at = at + 4
  else
    release(ARGV[at + 1])
    at = at + 2
  end
end
return replies
