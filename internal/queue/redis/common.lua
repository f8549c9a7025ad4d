-- What lists and streams have in common: leases and delays, kept in keys of our
-- own beside the queue and timed by the server's clock. It is put before
-- list.lua or stream.lua, and a call of one of their functions after. Nothing
-- is ever removed from one place before it is in the next: a script that ends
-- in an error has undone nothing, so it must not have lost anything either.

local source, leases, untils, laters, again, counts, dead = unpack(KEYS, 1, 7)
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function count(name)
  return tonumber(redis.call('HGET', counts, name) or '0')
end

-- due puts messages behind those that came back before; count "returned" is
-- both their order and what tells a watcher that one came.
local function due(id)
  redis.call('ZADD', again, redis.call('HINCRBY', counts, 'returned', 1), id)
end

local function unlease(id)
  redis.call('ZREM', untils, id)
  redis.call('HDEL', leases, id)
end

-- reap returns what a lease or a delay ended of, most of each at a time.
local function reap(most)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', untils, '-inf', now, 'LIMIT', 0, most)) do
    due(id)
    unlease(id)
  end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', laters, '-inf', now, 'LIMIT', 0, most)) do
    due(id)
    redis.call('ZREM', laters, id)
  end
end

-- lease gives a message to the owner; the order of the two commands does not
-- matter, since both are there or neither is.
local function lease(id, token, owner, visibility)
  redis.call('HSET', leases, id, token .. ' ' .. owner)
  redis.call('ZADD', untils, now + visibility, id)
end

-- owner tells who holds the message under that token; nil when the lease was
-- lost.
local function owner(id, token)
  local ends = redis.call('ZSCORE', untils, id)
  if not ends or tonumber(ends) <= now then
    return nil
  end
  local held = redis.call('HGET', leases, id)
  if not held or string.sub(held, 1, #token + 1) ~= token .. ' ' then
    return nil
  end
  return string.sub(held, #token + 2)
end

-- soonest is how many milliseconds are left until a lease or a delay ends; -1
-- where there is none.
local function soonest()
  local first = -1
  for _, set in ipairs({untils, laters}) do
    local head = redis.call('ZRANGE', set, 0, 0, 'WITHSCORES')
    if head[2] then
      local left = math.max(0, tonumber(head[2]) - now)
      if first < 0 or left < first then
        first = left
      end
    end
  end
  return first
end

-- ended counts the members of a set that reap has not seen yet.
local function ended(set)
  return redis.call('ZCOUNT', set, '-inf', now)
end
