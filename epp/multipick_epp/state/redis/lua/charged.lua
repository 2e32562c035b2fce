-- Names the endpoints that have a load or are charged.
-- KEYS: load, then the charges of each picker
-- ARGV: endpoints that a pool has at most
local named, endpoints = {[TABLE] = true}, {}
for i = 1, #KEYS do
  make_sound(KEYS[i], tonumber(ARGV[1]))
  for _, endpoint in ipairs(redis.call('HKEYS', KEYS[i])) do
    if not named[endpoint] then
      named[endpoint] = true
      endpoints[#endpoints + 1] = endpoint
    end
  end
end
return endpoints
