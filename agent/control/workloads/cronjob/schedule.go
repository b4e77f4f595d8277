package cronjob

import (
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"

	_ "time/tzdata" // zones mean the same on machines without a database of their own

	"github.com/robfig/cron/v3"
)

// tooManyMissed is the number of missed starts of which users are told that something is wrong, as in Kubernetes.
const tooManyMissed = 100

// schedule parses the schedule in its zone, and tells what is wrong with it.
func (r *run) schedule() cron.Schedule {
	spec := &r.CronJob.Spec
	text := spec.Schedule
	if spec.TimeZone != nil {
		if _, err := time.LoadLocation(*spec.TimeZone); err != nil {
			r.event(v1.EventTypeWarning, "UnknownTimeZone", fmt.Sprintf("invalid timeZone: %q: %s", *spec.TimeZone, err))
			return nil
		}
		if !strings.Contains(text, "TZ") {
			text = fmt.Sprintf("TZ=%s %s", *spec.TimeZone, text)
		}
	}
	if strings.Contains(spec.Schedule, "TZ") {
		r.event(v1.EventTypeWarning, "UnsupportedSchedule", fmt.Sprintf("CRON_TZ or TZ used in schedule %q is not officially supported, see "+
			"https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details", spec.Schedule))
	}
	parsed, err := cron.ParseStandard(text)
	if err != nil {
		r.event(v1.EventTypeWarning, "UnparseableSchedule", fmt.Sprintf("unparseable schedule: %q : %s", spec.Schedule, err))
		return nil
	}
	return parsed
}

// last is the time from which starts are due: the last start, or the object's creation.
func last(c *batchv1.CronJob) time.Time {
	if c.Status.LastScheduleTime != nil {
		return c.Status.LastScheduleTime.Time
	}
	return c.CreationTimestamp.Time
}

// due is the latest start that should have been made after from, and how many there were, counted up to one above
// tooManyMissed; zero where there was none.
func due(schedule cron.Schedule, from, now time.Time) (latest time.Time, missed int, err error) {
	first := schedule.Next(from)
	if first.IsZero() {
		return time.Time{}, 0, errors.New("it never comes")
	}
	for at := first; !at.IsZero() && !at.After(now) && missed <= tooManyMissed; at = schedule.Next(at) {
		latest = at
		missed++
	}
	if missed <= tooManyMissed {
		return latest, missed, nil
	}
	if every, ok := schedule.(cron.ConstantDelaySchedule); ok {
		return first.Add(now.Sub(first) / every.Delay * every.Delay), missed, nil
	}
	// The later the second after which a start is looked for, the later the start that is found: the last second that still
	// finds one which is not in the future finds the latest.
	seconds := int(now.Sub(first)/time.Second) + 1
	after := func(n int) time.Time { return schedule.Next(first.Add(time.Duration(n-1) * time.Second)) }
	n := sort.Search(seconds, func(n int) bool { at := after(n); return at.IsZero() || at.After(now) })
	return after(n - 1), missed, nil
}
