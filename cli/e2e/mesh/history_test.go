package mesh

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

const (
	registers = 3
	// askPause is between two requests of a client, and askLimit bounds one.
	askPause = 50 * time.Millisecond
	askLimit = 3 * time.Second
	// checkLimit bounds the search for an order that explains a history.
	checkLimit = 30 * time.Second
)

// access is a read of a register, or a write of a value that is written once only.
type access struct {
	Register int
	Write    bool
	Value    string
}

// seen is what an access was told: the value, where it read. An unknown write may have happened, or happen later.
type seen struct {
	Value   string
	Unknown bool
}

// history records what clients at every host ask of the API and are told.
type history struct {
	start time.Time
	stop  context.CancelFunc
	done  sync.WaitGroup

	mu       sync.Mutex
	accesses []porcupine.Operation
	// written are the times at which writes were acknowledged through hosts that are no victims.
	written []time.Duration
	// acknowledged are the ConfigMaps whose creation was.
	acknowledged []string
	lost         int
}

// staleness notes whether an answer came with a warning: without a quorum reads are served from the past, and say so.
type staleness struct{ warned bool }

func (s *staleness) HandleWarningHeader(int, string, string) { s.warned = true }

// startHistory has a client at each host read and write registers all the time.
func startHistory(t *testing.T, run string, victims []string) *history {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	h := &history{start: time.Now(), stop: stop}
	client, _ := clientOf(t, hosts[0])
	for i := range registers {
		object := drillMap(registerName(run, i), "register", "")
		if _, err := client.CoreV1().ConfigMaps("default").Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	h.start = time.Now()
	for i, host := range hosts {
		_, config := clientOf(t, host)
		warnings := &staleness{}
		config.WarningHandler = warnings
		counts := !slices.Contains(victims, host) || len(victims) == len(hosts)
		h.done.Go(func() { h.ask(ctx, config, warnings, run, i, counts) })
	}
	t.Cleanup(func() { stop(); h.done.Wait() })
	return h
}

func drillMap(name, label, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"drill": label}}, Data: map[string]string{"value": value}}
}

func registerName(run string, i int) string { return fmt.Sprintf("register-%s-%d", run, i) }

func (h *history) ask(ctx context.Context, config *rest.Config, warnings *staleness, run string, number int, counts bool) {
	config = rest.CopyConfig(config)
	config.Timeout = askLimit
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		panic(err) // clientOf made one of it already
	}
	maps := client.CoreV1().ConfigMaps("default")
	random := rand.New(rand.NewPCG(uint64(number), 1))
	for i := 0; ctx.Err() == nil; i++ {
		in := access{Register: random.IntN(registers), Write: random.IntN(3) == 0, Value: fmt.Sprintf("%d-%d", number, i)}
		name := registerName(run, in.Register)
		warnings.warned = false
		called, out := time.Since(h.start), seen{}
		var object *corev1.ConfigMap
		if in.Write {
			_, err = maps.Update(context.Background(), drillMap(name, "register", in.Value), metav1.UpdateOptions{})
		} else if object, err = maps.Get(context.Background(), name, metav1.GetOptions{}); err == nil {
			out.Value = object.Data["value"]
		}
		out.Unknown = err != nil || warnings.warned
		h.note(number, in, out, called, counts)
		if i%4 == 0 {
			h.create(client, fmt.Sprintf("written-%s-%d-%d", run, number, i), counts)
		}
		select {
		case <-ctx.Done():
		case <-time.After(askPause):
		}
	}
}

func (h *history) note(number int, in access, out seen, called time.Duration, counts bool) {
	now := time.Since(h.start)
	returned := now.Nanoseconds()
	h.mu.Lock()
	defer h.mu.Unlock()
	if out.Unknown {
		h.lost++
		if !in.Write {
			return // it tells nothing
		}
		returned = math.MaxInt64
	} else if in.Write && counts {
		h.written = append(h.written, now)
	}
	h.accesses = append(h.accesses, porcupine.Operation{ClientId: number, Input: in, Output: out, Call: called.Nanoseconds(), Return: returned})
}

func (h *history) create(client kubernetes.Interface, name string, counts bool) {
	object := drillMap(name, "written", "")
	_, err := client.CoreV1().ConfigMaps("default").Create(context.Background(), object, metav1.CreateOptions{})
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		h.lost++
		return
	}
	h.acknowledged = append(h.acknowledged, name)
	if counts {
		h.written = append(h.written, time.Since(h.start))
	}
}

// standstill is the longest time without an acknowledged write. While a majority of the voters lives some must come through
// during the fault.
func (h *history) standstill(t *testing.T, begun, mended time.Time, living bool) (longest time.Duration) {
	t.Helper()
	from, to := begun.Sub(h.start), mended.Sub(h.start)
	during := 0
	slices.Sort(h.written)
	for i, at := range h.written {
		if i > 0 {
			longest = max(longest, at-h.written[i-1])
		}
		if at > from && at < to {
			during++
		}
	}
	t.Logf("no write was acknowledged for %v at most; %d were while the fault lasted", longest.Round(time.Millisecond), during)
	if living && during == 0 {
		t.Error("no write was acknowledged while the fault lasted")
	}
	return longest
}

// check ends the clients and proves what they were told: every access fits one order in time, and nothing acknowledged is gone.
func (h *history) check(t *testing.T) {
	t.Helper()
	h.stop()
	h.done.Wait()
	for _, host := range hosts {
		list := writtenAt(t, host)
		there := map[string]bool{}
		for _, object := range list.Items {
			there[object.Name] = true
		}
		for _, name := range h.acknowledged {
			if !there[name] {
				t.Errorf("through %s: %s was acknowledged and is not there", host, name)
			}
		}
	}
	if len(h.accesses) == 0 || len(h.acknowledged) == 0 {
		t.Fatal("no access succeeded: the drill tells nothing")
	}
	verdict := porcupine.CheckOperationsTimeout(registerModel(), settle(h.accesses), checkLimit)
	if verdict != porcupine.Ok {
		t.Errorf("the history of %d accesses is not linearizable: %v", len(h.accesses), verdict)
	}
	t.Logf("%d accesses and %d creations are linearizable; %d requests failed or were answered from the past", len(h.accesses), len(h.acknowledged), h.lost)
	client, _ := clientOf(t, hosts[0])
	if err := client.CoreV1().ConfigMaps("default").DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "drill"}); err != nil {
		t.Error(err)
	}
}

// writtenAt lists, through the host, what clients wrote. A host that lacked the quorum answers from the past for a moment more,
// and says so; that is no answer here.
func writtenAt(t *testing.T, host string) (list *corev1.ConfigMapList) {
	t.Helper()
	_, config := clientOf(t, host)
	warnings := &staleness{}
	config.WarningHandler = warnings
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	took := eventually(t, time.Minute, "an answer of the present through "+host, func() (string, bool) {
		warnings.warned = false
		list, err = client.CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{LabelSelector: "drill=written"})
		return fmt.Sprintf("%v, warned: %v", err, warnings.warned), err == nil && !warnings.warned
	})
	if took > time.Second {
		t.Logf("%s gave no answer of the present for %v: it answered from the past, or a connection to it was dead", host, took.Round(time.Millisecond))
	}
	return list
}

// settle gives each write whose answer was lost the end that can be known, so that the search for an order stays small however
// many there are: one that nobody ever read may as well never have happened, and the others had happened when the first read of
// them returned. Values are written once only.
func settle(accesses []porcupine.Operation) []porcupine.Operation {
	type value struct {
		register int
		value    string
	}
	first := map[value]int64{}
	for _, one := range accesses {
		in, out := one.Input.(access), one.Output.(seen)
		key := value{in.Register, out.Value}
		if before, ok := first[key]; !in.Write && (!ok || one.Return < before) {
			first[key] = one.Return
		}
	}
	var settled []porcupine.Operation
	for _, one := range accesses {
		in := one.Input.(access)
		if one.Output.(seen).Unknown {
			returned, read := first[value{in.Register, in.Value}]
			if !read {
				continue
			}
			one.Return = max(returned, one.Call) // a read that ended earlier is wrong, which the search finds
		}
		settled = append(settled, one)
	}
	return settled
}

// registerModel is one register a partition; "" is its first value.
func registerModel() porcupine.Model {
	return porcupine.Model{
		Partition: func(all []porcupine.Operation) [][]porcupine.Operation {
			parts := make([][]porcupine.Operation, registers)
			for _, one := range all {
				i := one.Input.(access).Register
				parts[i] = append(parts[i], one)
			}
			return parts
		},
		Init: func() any { return "" },
		Step: func(state, input, output any) (bool, any) {
			in, out := input.(access), output.(seen)
			if in.Write {
				return true, in.Value
			}
			return out.Value == state, state
		},
	}
}

func TestHistoriesAreJudged(t *testing.T) {
	write := func(value string, call, back int64) porcupine.Operation {
		return porcupine.Operation{Input: access{Write: true, Value: value}, Output: seen{}, Call: call, Return: back}
	}
	unknown := func(value string, call int64) porcupine.Operation {
		return porcupine.Operation{ClientId: 2, Input: access{Write: true, Value: value}, Output: seen{Unknown: true}, Call: call, Return: math.MaxInt64}
	}
	read := func(value string, call, back int64) porcupine.Operation {
		return porcupine.Operation{ClientId: 1, Input: access{}, Output: seen{Value: value}, Call: call, Return: back}
	}
	for _, c := range []struct {
		what    string
		history []porcupine.Operation
		right   bool
	}{
		{"a fresh read", []porcupine.Operation{write("a", 1, 2), read("a", 3, 4)}, true},
		{"a stale read", []porcupine.Operation{write("a", 1, 2), write("b", 3, 4), read("a", 5, 6)}, false},
		{"a lost write that nobody saw", []porcupine.Operation{write("a", 1, 2), unknown("b", 3), read("a", 4, 5)}, true},
		{"a lost write that came late", []porcupine.Operation{write("a", 1, 2), unknown("b", 3), read("a", 4, 5), read("b", 6, 7)}, true},
		{"a lost write that came and went", []porcupine.Operation{write("a", 1, 2), unknown("b", 3), read("b", 4, 5), read("a", 6, 7)}, false},
		{"a lost write that was seen before it was made", []porcupine.Operation{read("b", 1, 2), unknown("b", 3)}, false},
		{"a value that nobody wrote", []porcupine.Operation{read("b", 1, 2)}, false},
	} {
		if right := porcupine.CheckOperations(registerModel(), settle(c.history)); right != c.right {
			t.Errorf("%s counts as right: %v", c.what, right)
		}
	}
}
