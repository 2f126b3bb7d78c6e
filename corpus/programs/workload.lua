-- An interpreter at work: numbers, strings, tables, closures, coroutines, errors caught, sorting,
-- pattern matching and garbage. Prints one line. Usage: lua workload.lua [ROUNDS]

local rounds = tonumber(arg and arg[1]) or 1
local sum = 0

local function sieve(limit)
  local composite, count = {}, 0
  for i = 2, limit do
    if not composite[i] then
      count = count + 1
      for j = i * i, limit, i do composite[j] = true end
    end
  end
  return count
end

local function words(count)
  local list, state = {}, 42
  for i = 1, count do
    state = (state * 1103515245 + 12345) & 0x7fffffff
    list[i] = string.format("%s-%05x", string.char(97 + state % 26), state % 100000)
  end
  return list
end

local Account = {}
Account.__index = Account
function Account.new(owner) return setmetatable({ owner = owner, balance = 0 }, Account) end
function Account:deposit(amount)
  if amount < 0 then error("negative amount") end
  self.balance = self.balance + amount
end

local function permutations(n)
  local function generate(list, length)
    if length == 0 then
      coroutine.yield(list)
    else
      for i = 1, length do
        list[length], list[i] = list[i], list[length]
        generate(list, length - 1)
        list[length], list[i] = list[i], list[length]
      end
    end
  end
  local list = {}
  for i = 1, n do list[i] = i end
  return coroutine.wrap(function() generate(list, n) end)
end

for _ = 1, rounds do
  sum = sum + sieve(10000)

  local list = words(1500)
  table.sort(list, function(a, b) return a < b end)
  local joined = table.concat(list, ",")
  for letter, digits in joined:gmatch("(%a)%-(%x+)") do
    sum = sum + letter:byte() + tonumber(digits, 16) % 7
  end
  sum = sum + #joined:gsub("%-0", "+")

  local account, failures = Account.new("lua"), 0
  for i = 1, 2000 do
    if not pcall(account.deposit, account, i % 10 - 1) then failures = failures + 1 end
  end
  sum = sum + account.balance + failures

  for list in permutations(6) do sum = sum + list[1] * list[6] end

  local x = 0.0
  for i = 1, 20000 do x = x + math.sin(i) * (i % 3 == 0 and 1 or -1) end
  sum = sum + math.floor(x * 1000)
end

print(string.format("lua %d", sum))
