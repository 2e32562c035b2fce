-- Tells which caches an endpoint has.
-- KEYS: the endpoint's fence
-- Returns their names; none where the fence is not as we write it, until its owner sees to it.
local fields = redis.pcall('HLEN', KEYS[1])
if type(fields) ~= 'number' or fields > FIELDS_AT_MOST then
  return {}
end
return caches_among(redis.call('HKEYS', KEYS[1]), leave)
