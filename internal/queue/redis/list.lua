-- A list: the body of a message in our hands is in a hash of our own, from
-- before it leaves the list until it is settled.

local bodies, tries, whys = unpack(KEYS, 8, 10)

local function arrived()
  return count('taken') + redis.call('LLEN', source)
end

local function forget(id)
  redis.call('HDEL', bodies, id)
  redis.call('HDEL', tries, id)
end

-- receive(owner, n, visibility ms, token prefix, first number, most bytes, end)
local function receive(holder, n, visibility, prefix, first, most, tail)
  reap(100)
  local out, size = {}, 0
  while #out < n and size < most do
    local token = prefix .. (first + #out)
    local id = redis.call('ZRANGE', again, 0, 0)[1]
    local body
    if id then
      body = redis.call('HGET', bodies, id)
    else
      body = redis.call('LINDEX', source, tail == '1' and -1 or 0)
      if not body then
        break
      end
      redis.call('HSET', bodies, token, body)
    end
    if body then
      lease(id or token, token, holder, visibility)
      local attempt = redis.call('HINCRBY', tries, id or token, 1)
      out[#out + 1] = {id or token, token, attempt, -1, body}
      size = size + #body
    end
    if id then
      redis.call('ZREM', again, id)
    else
      redis.call('HINCRBY', counts, 'taken', 1)
      redis.call(tail == '1' and 'RPOP' or 'LPOP', source)
    end
  end
  return out
end

local function look()
  reap(1000)
  return {arrived() + count('returned'), soonest()}
end

local function stats()
  local over, up = ended(untils), ended(laters)
  return {
    redis.call('LLEN', source) + redis.call('ZCARD', again) + over + up,
    redis.call('ZCARD', laters) - up,
    redis.call('ZCARD', untils) - over,
    redis.call('LLEN', dead),
    arrived(),
    -1,
  }
end

local function extend(id, token, visibility)
  if not owner(id, token) then
    return 0
  end
  redis.call('ZADD', untils, now + visibility, id)
  return 1
end

local function ack(id, token)
  if not owner(id, token) then
    return 0
  end
  unlease(id)
  forget(id)
  return 1
end

local function nack(id, token, delay)
  if not owner(id, token) then
    return 0
  end
  if delay > 0 then
    redis.call('ZADD', laters, now + delay, id)
  else
    due(id)
  end
  unlease(id)
  return 1
end

local function bury(id, token, why)
  local body = owner(id, token) and redis.call('HGET', bodies, id)
  if not body then
    return 0
  end
  if redis.call('EXISTS', dead) == 0 then
    redis.call('DEL', whys) -- of messages that somebody took out
  end
  redis.call('RPUSH', dead, body)
  redis.call('HSET', whys, redis.sha1hex(body), cjson.encode({
    reason = why, id = id, attempts = tonumber(redis.call('HGET', tries, id) or '1'), at = now,
  }))
  unlease(id)
  forget(id)
  return 1
end
