-- Which endpoints there are, how well they are known, and who writes them.
-- KEYS: endpoints, modes, owners' endpoints
-- ARGV: how many of each there are at most
-- Returns all members, or fields and values, of each, but for what is longer than any of ours; or why it is of no use.
local function all_of(key, count, read, parts)
  local size = redis.pcall(count, key)
  if type(size) == 'number' and size > tonumber(ARGV[1]) then
    return 'more than a pool has'
  end
  local found = redis.pcall(read, key)
  return found.err or sound_of(found, parts, leave)
end

return {
  all_of(KEYS[1], 'SCARD', 'SMEMBERS', 1),
  all_of(KEYS[2], 'HLEN', 'HGETALL', 2),
  all_of(KEYS[3], 'HLEN', 'HGETALL', 2),
}
