-- What deploy/argocd/health.lua says of objects as Stoker leaves them: lua5.1 deploy/tests/health.lua, from the top folder.

local script = assert(loadfile("deploy/argocd/health.lua"))

local function condition(type, status, message)
  return {type = type, status = status, message = message or (type .. " is " .. status)}
end

-- Given a kind, its conditions and what else it has; the health must be this, with this message.
local function object(kind, conditions, more)
  more = more or {}
  local status = {observedGeneration = more.observed or 2, conditions = conditions, phase = more.phase}
  if more.nothing then status = nil end
  return {
    kind = kind, spec = more.spec or {}, status = status,
    metadata = {generation = 2, deletionTimestamp = more.deleted},
  }
end

local ready, unready = condition("Ready", "True"), condition("Ready", "False")
local busy, quiet = condition("Reconciling", "True"), condition("Reconciling", "False")
local stuck, free = condition("Stalled", "True", "no quota"), condition("Stalled", "False")

local cases = {
  {"a pool that was filled", object("HotStandbyDeployment", {ready}), "Healthy", "Ready is True"},
  {"a filled pool without standby", object("HotStandbyDeployment", {ready, condition("StandbyAvailable", "False")}), "Healthy"},
  {"a pool that is being filled", object("HotStandbyDeployment", {unready, busy}), "Progressing", "Reconciling is True"},
  {"a pool that drains", object("HotStandbyDeployment", {unready}), "Progressing", "Ready is False"},
  {"a pool that cannot be filled", object("HotStandbyJob", {unready, busy, stuck}), "Degraded", "no quota"},
  {"a paused pool", object("HotStandbyJob", {ready}, {spec = {paused = true}}), "Suspended"},
  {"a paused pool with a bad template", object("HotStandbyJob", {ready, stuck}, {spec = {paused = true}}), "Degraded"},
  {"an object that nobody has looked at", object("JobFlow", nil, {nothing = true}), "Progressing"},
  {"an object that was changed since", object("JobFlow", {ready, quiet, free}, {observed = 1}), "Progressing"},
  {"an object that goes", object("JobFlow", {ready, quiet, free}, {deleted = "2026-01-01T00:00:00Z"}), "Progressing"},
  {"a flow that runs", object("JobFlow", {ready, busy, free}), "Progressing"},
  {"a flow that has succeeded", object("JobFlow", {ready, quiet, free, condition("Complete", "True")}), "Healthy"},
  {"a flow that has failed", object("JobFlow", {unready, quiet, stuck, condition("Complete", "False")}), "Degraded"},
  {"a flow that waits for a JobTemplate", object("JobFlow", {unready, busy, free}), "Progressing"},
  {"a suspended flow", object("JobFlow", {ready, quiet, free}, {spec = {suspend = true}}), "Suspended"},
  {"a DaemonJob that has failed", object("DaemonJob", {unready, quiet, stuck}), "Degraded", "no quota"},
  {"a cron job that waits for its instant", object("PreScaledCronJob", {ready, quiet, free}), "Healthy"},
  {"a suspended cron job", object("PreScaledCronJob", {ready, quiet, free}, {spec = {cronJob = {spec = {suspend = true}}}}), "Suspended"},
  {"a cron job with a bad schedule", object("PreScaledCronJob", {unready, quiet, stuck}), "Degraded"},
  {"a scheduled NodeBatchJob", object("NodeBatchJob", {ready, quiet, free}), "Healthy"},
  {"a suspended NodeBatchJob", object("NodeBatchJob", {ready, quiet, free}, {spec = {suspend = true}}), "Suspended"},
  {"a JobTemplate that nothing refers to", object("JobTemplate", nil, {nothing = true}), "Healthy"},
  {"a JobTemplate", object("JobTemplate", {ready}), "Healthy"},
  {"a claim that waits", object("StandbyClaim", {condition("Bound", "False", "none stands by")}, {phase = "Pending"}), "Progressing", "none stands by"},
  {"a claim that has its pod", object("StandbyClaim", {condition("Bound", "True")}, {phase = "Bound"}), "Healthy"},
  {"a claim whose pod is done", object("StandbyClaim", {condition("Bound", "False")}, {phase = "Released"}), "Healthy"},
}

local wrong = 0
for _, case in ipairs(cases) do
  local what, given, status, message = case[1], case[2], case[3], case[4]
  obj = given
  local said = script()
  if said.status ~= status or (message ~= nil and said.message ~= message) then
    wrong = wrong + 1
    io.stderr:write(("%s: is %s (%s), not %s (%s)\n"):format(what, said.status, said.message, status, message or "any"))
  end
end
os.exit(wrong == 0 and 0 or 1)
