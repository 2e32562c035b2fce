-- Does what a replica asks for in one turn of its loop, in order.
-- KEYS: load, this replica's charges, routed
-- ARGV: of each step its name, then the arguments of the function of that name
-- Returns three figures of each reserve: the winner's place, from 0, its new tokens, and its load before the charge.
local ROUTED_S = 2  -- after so long, every picker has long heard of it by the stream of hints
local ROUTED_PROMPTS = 4096  -- one key for all of them: to expire one each costs more than all the rest
local HALF = IN_FLIGHT / 2
local load, charges, routed = KEYS[1], KEYS[2], KEYS[3]
local tonumber = tonumber
local replies = {}

local function cheapest(names, new, unexplained)
  local count = #names
  local loads = redis.call('HMGET', load, unpack(names))
  local least, winner, its_load = math.huge, 1, 0
  for i = 1, count do
    local sum = tonumber(loads[i] or 0)
    if not sum or not (sum >= 0 and sum < MOST) then
      sum = 0
    end
    local queued = (sum + HALF) % IN_FLIGHT - HALF
    local in_flight = (sum - queued) / IN_FLIGHT
    if queued < 0 then  -- tokens were taken off twice, and borrowed of a request
      queued = 0
    end
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

-- Charges the cheapest candidate of one request. `figures`: the candidates' new tokens, then the new tokens where an
-- equal prompt went; `ends`: the candidates' names, each ended by a zero; `prompt`: empty where it is not to be compared;
-- `explained`: the candidates' unexplained queued tokens, then their unexplained in flight, empty where there are none.
local function reserve(figures, ends, prompt, explained)
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
  local charge = IN_FLIGHT + new[winner]
  add(load, names[winner], charge)
  add(charges, names[winner], charge)
  if prompt ~= '' and new[winner] > again then
    hold(prompt, holders, names[winner])
  end
  local n = #replies
  replies[n + 1], replies[n + 2], replies[n + 3] = winner - 1, new[winner], its_load
end

local at = 1
while ARGV[at] do
  if ARGV[at] == 'reserve' then
    reserve(unpack(ARGV, at + 1, at + 4))
    at = at + 5
  else  -- change: of what this replica charges an endpoint
    add(load, ARGV[at + 1], ARGV[at + 2])
    add(charges, ARGV[at + 1], ARGV[at + 2])
    at = at + 3
  end
end
return replies
