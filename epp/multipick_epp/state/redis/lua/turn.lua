-- Does what a replica asks for in one turn of its loop, in order.
-- KEYS: load, this replica's charges, routed, hints
-- ARGV: of each step its name, then the arguments of the function of that name
-- Returns three figures of each reserve: the winner's place, from 0, its new tokens, and its load before the charge.
local ROUTED_S = 2  -- after so long, every picker has long heard of it by the stream of hints
local ROUTED_PROMPTS = 4096  -- one key for all of them: to expire one each costs more than all the rest
local HALF = IN_FLIGHT / 2
local load, charges, routed, hints = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local tonumber = tonumber
local replies = {}

-- A number of the loads, its tokens and its requests.
local function parts_of(text)
  local sum = tonumber(text or 0)
  if not sum or not (sum >= 0 and sum < MOST) then
    sum = 0
  end
  local tokens = (sum + HALF) % IN_FLIGHT - HALF
  return sum, math.max(0, tokens), (sum - tokens) / IN_FLIGHT  -- tokens taken off twice have borrowed of a request
end

-- Policy `marginal` weighs contexts: what each candidate has of them, in tokens.
local function contexts_of(names)
  local fields = {}
  for i = 1, #names do
    fields[i] = names[i] .. CONTEXTS
  end
  return redis.call('HMGET', load, unpack(fields))
end

local function cheapest(names, new, unexplained, length, price, least_traffic)
  local count = #names
  local loads = redis.call('HMGET', load, unpack(names))
  local contexts = price > 0 and contexts_of(names)
  local least, winner, its_load = math.huge, 1, 0
  for i = 1, count do
    local sum, queued, in_flight = parts_of(loads[i])
    local elsewhere = 0
    if unexplained then
      queued, elsewhere = queued + unexplained[i], unexplained[count + i]
    end
    local score
    if contexts then  -- what is not explained counts as long as this prompt
      local _, context = parts_of(contexts[i])
      local traffic = context + (in_flight + 2 * elsewhere + 1) * length
      score = (queued + new[i] * price) * (traffic + least_traffic)
    else
      score = (queued + new[i]) * (in_flight + elsewhere + 1)
    end
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

-- No equal prompt goes to this endpoint any more.
local function withdraw(prompt, endpoint)
  local holders = redis.call('HGET', routed, prompt) or ''
  local first, last = string.find(holders, ' ' .. endpoint .. ' ', 1, true)
  if not first then
    return
  end
  local others = string.sub(holders, 1, first) .. string.sub(holders, last + 1)
  if others == ' ' then
    redis.call('HDEL', routed, prompt)
  else
    redis.call('HSET', routed, prompt, others)
  end
end

local function charge(field, change)
  add(load, field, change)
  add(charges, field, change)
end

-- Charges the cheapest candidate of one request. `figures`: the candidates' new tokens, then the new tokens where an
-- equal prompt went; `ends`: the candidates' names, each ended by a zero; `prompt`: empty where it is not to be compared;
-- `explained`: the candidates' unexplained queued tokens, then their unexplained in flight, empty where there are none;
-- `context`: the prompt's tokens, and price and least traffic for policy `marginal`, else 0; empty where contexts are not
-- accounted for.
local function reserve(figures, ends, prompt, explained, context)
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

  local length, price, least_traffic = 0, 0, 0
  if context ~= '' then
    length, price, least_traffic = struct.unpack('<ddd', context)
  end
  local winner, its_load = cheapest(names, new, unexplained, length, price, least_traffic)
  charge(names[winner], IN_FLIGHT + new[winner])
  if length > 0 then
    charge(names[winner] .. CONTEXTS, IN_FLIGHT + length)
  end
  if prompt ~= '' and new[winner] > again then
    hold(prompt, holders, names[winner])
  end
  local n = #replies
  replies[n + 1], replies[n + 2], replies[n + 3] = winner - 1, new[winner], its_load
end

local at = 1
while ARGV[at] do
  if ARGV[at] == 'reserve' then
    reserve(unpack(ARGV, at + 1, at + 5))
    at = at + 6
  elseif ARGV[at] == 'change' then  -- of what this replica charges an endpoint
    charge(ARGV[at + 1], ARGV[at + 2])
    at = at + 3
  elseif ARGV[at] == 'withdraw' then
    withdraw(ARGV[at + 1], ARGV[at + 2])
    at = at + 3
  else  -- hint: entries to keep, how many arguments follow, then kinds and records in turn, for every replica
    local last = at + 2 + tonumber(ARGV[at + 2])
    tell(hints, ARGV[at + 1], unpack(ARGV, at + 3, last))
    at = last + 1
  end
end
return replies
