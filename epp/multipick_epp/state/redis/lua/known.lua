-- Which endpoints there are, how well they are known, and who writes them.
-- KEYS: endpoints, modes, owners' endpoints
-- ARGV: how many of each there are at most
-- Returns all members, or fields and values, of each, but for what is longer than any of ours; or why it is of no use.
local function all_of(key, count, read, parts)
  local size = redis.pcall(count, key)
  if type(size) == 'number' and size > tonumber(ARGV[1]) then
    return 'more than a pool has'
  end
  local found, sound = redis.pcall(read, key), {}
  if found.err then
    return found.err
  end
  for i = 1, #found, parts do
    if #found[i] <= LONGEST and #found[i + parts - 1] <= LONGEST then
      for part = i, i + parts - 1 do
        sound[#sound + 1] = found[part]
      end
    end
  end
  return sound
end

return {
  all_of(KEYS[1], 'SCARD', 'SMEMBERS', 1),
  all_of(KEYS[2], 'HLEN', 'HGETALL', 2),
  all_of(KEYS[3], 'HLEN', 'HGETALL', 2),
}
