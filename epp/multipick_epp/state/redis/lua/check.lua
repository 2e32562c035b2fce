-- Makes some fields of the loads the sums of what is charged there by the pickers that have a lease.
-- KEYS: load, leases, then the charges of each picker that is named
-- ARGV: how many pickers are named, their names, the fields
-- Returns how many figures were wrong; -1 where a picker has a lease that is not named.
local load, leases = KEYS[1], KEYS[2]
local pickers = tonumber(ARGV[1])
local fields = {unpack(ARGV, pickers + 2)}
local wrong = 0

local key_of, sums = {}, {}
for i = 1, pickers do
  key_of[ARGV[i + 1]] = KEYS[i + 2]
end
for i = 1, #fields do
  sums[i] = 0
end
for _, picker in ipairs(redis.call('HKEYS', leases)) do
  local charges = key_of[picker]
  if not charges then
    return -1
  end
  local found = redis.pcall('HMGET', charges, unpack(fields))  -- of another type: nothing, until its owner comes
  for i = 1, #fields do
    local figure = found[i] and figure_of(found[i])
    if figure and figure > 0 then
      sums[i] = sums[i] + figure
    elseif found[i] then  -- 0 is as good as none; what is no figure its owner will notice
      redis.call('HDEL', charges, fields[i])
      wrong = wrong + (figure and 0 or 1)
    end
  end
end

local found = redis.call('HMGET', load, unpack(fields))
for i = 1, #fields do
  local figure = found[i] and figure_of(found[i])
  if found[i] and sums[i] == 0 then
    redis.call('HDEL', load, fields[i])
  elseif figure ~= sums[i] and sums[i] > 0 then
    redis.call('HSET', load, fields[i], string.format('%.0f', sums[i]))
  end
  if (found[i] or sums[i] > 0) and figure ~= sums[i] then
    wrong = wrong + 1
  end
end
return wrong
