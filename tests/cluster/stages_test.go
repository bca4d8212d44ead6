// The stages of simulated pods, matched and rendered by KWOK's own code, without a cluster.
package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"sigs.k8s.io/kwok/pkg/apis/internalversion"
	kwokconfig "sigs.k8s.io/kwok/pkg/config"
	"sigs.k8s.io/kwok/pkg/utils/gotpl"
	"sigs.k8s.io/kwok/pkg/utils/lifecycle"
)

func loadStages(t testing.TB) lifecycle.Lifecycle {
	t.Helper()
	text, err := simulationStages()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "stages.yaml")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
	objects, err := kwokconfig.Load(context.Background(), file)
	if err != nil {
		t.Fatal(err)
	}
	var pods []*internalversion.Stage
	for _, stage := range kwokconfig.FilterWithType[*internalversion.Stage](objects) {
		if stage.Spec.ResourceRef.Kind == "Pod" {
			pods = append(pods, stage)
		}
	}
	stages, err := lifecycle.NewLifecycle(pods)
	if err != nil {
		t.Fatal(err)
	}
	return stages
}

func simulatedPod(phase corev1.PodPhase, ready corev1.ConditionStatus, annotations map[string]string) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default", ResourceVersion: "7", Annotations: annotations},
		Spec:       corev1.PodSpec{NodeName: "sim-0", Containers: []corev1.Container{{Name: "c", Image: "i"}}},
		Status:     corev1.PodStatus{Phase: phase},
	}
	if phase == corev1.PodRunning {
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
			Name: "c", Image: "i", Ready: ready == corev1.ConditionTrue,
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
		}}
	}
	return pod
}

func deleted(pod *corev1.Pod, grace int64) *corev1.Pod {
	pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds = &metav1.Time{Time: time.Now()}, &grace
	return pod
}

// next returns the names of all stages that match; two would mean a throw of dice.
func next(t testing.TB, stages lifecycle.Lifecycle, pod *corev1.Pod) []*lifecycle.Stage {
	t.Helper()
	found, err := stages.ListAllPossible(context.Background(),
		&lifecycle.Event{Labels: pod.Labels, Annotations: pod.Annotations, Data: pod})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestEveryStateOfASimulatedPodHasAtMostOneNextStage(t *testing.T) {
	stages := loadStages(t)
	set := func(pairs ...string) map[string]string {
		annotations := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			annotations["sim.stoker.dev/"+pairs[i]] = pairs[i+1]
		}
		return annotations
	}
	const yes, no = corev1.ConditionTrue, corev1.ConditionFalse
	for _, c := range []struct {
		name string
		pod  *corev1.Pod
		want string
	}{
		{"scheduled", simulatedPod(corev1.PodPending, no, nil), "pod-ready"},
		{"scheduled, slow", simulatedPod(corev1.PodPending, no, set("ready-after", "3s")), "pod-ready"},
		{"scheduled, told to be unready", simulatedPod(corev1.PodPending, no, set("ready", "false")), "pod-start-unready"},
		{"running", simulatedPod(corev1.PodRunning, yes, nil), ""},
		{"told to be unready", simulatedPod(corev1.PodRunning, yes, set("ready", "false")), "pod-turn-unready"},
		{"told to stay unready", simulatedPod(corev1.PodRunning, no, set("ready", "false")), ""},
		{"told to be ready again", simulatedPod(corev1.PodRunning, no, set("ready", "true")), "pod-turn-ready"},
		{"has an end", simulatedPod(corev1.PodRunning, yes, set("complete-after", "1s")), "pod-complete"},
		{"has an end, told to be unready", simulatedPod(corev1.PodRunning, yes, set("complete-after", "1s", "ready", "false")), "pod-turn-unready"},
		{"told to fail", simulatedPod(corev1.PodRunning, yes, set("phase", "Failed")), "pod-end-as-told"},
		{"told to fail, has an end", simulatedPod(corev1.PodRunning, yes, set("phase", "Failed", "complete-after", "1s")), "pod-end-as-told"},
		{"ended", simulatedPod(corev1.PodSucceeded, no, set("phase", "Succeeded")), ""},
		{"deleted while running", deleted(simulatedPod(corev1.PodRunning, yes, nil), 30), "pod-terminate"},
		{"deleted while running, told to fail", deleted(simulatedPod(corev1.PodRunning, yes, set("phase", "Failed")), 30), "pod-terminate"},
		{"deleted and ended", deleted(simulatedPod(corev1.PodFailed, no, nil), 30), ""},
		{"deleted before it started", deleted(simulatedPod(corev1.PodPending, no, nil), 30), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			found := next(t, stages, c.pod)
			got := ""
			for _, stage := range found {
				got += stage.Name()
			}
			if got != c.want {
				t.Errorf("next stage %q, want %q", got, c.want)
			}
		})
	}
}

func TestStagesLeadToTheStatusThatAnnotationsAskFor(t *testing.T) {
	stages := loadStages(t)
	for _, c := range []struct {
		name     string
		pod      *corev1.Pod
		phase    corev1.PodPhase
		ready    corev1.ConditionStatus
		exitCode int32
	}{
		{"starts", simulatedPod(corev1.PodPending, "", nil), corev1.PodRunning, corev1.ConditionTrue, 0},
		{"starts unready", simulatedPod(corev1.PodPending, "", map[string]string{"sim.stoker.dev/ready": "false"}), corev1.PodRunning, corev1.ConditionFalse, 0},
		{"completes", simulatedPod(corev1.PodRunning, "True", map[string]string{"sim.stoker.dev/complete-after": "1s"}), corev1.PodSucceeded, corev1.ConditionFalse, 0},
		{"completes with a code", simulatedPod(corev1.PodRunning, "True", map[string]string{"sim.stoker.dev/complete-after": "1s", "sim.stoker.dev/exit-code": "3"}), corev1.PodFailed, corev1.ConditionFalse, 3},
		{"fails as told", simulatedPod(corev1.PodRunning, "True", map[string]string{"sim.stoker.dev/phase": "Failed"}), corev1.PodFailed, corev1.ConditionFalse, 1},
		{"is terminated", deleted(simulatedPod(corev1.PodRunning, "True", nil), 30), corev1.PodFailed, corev1.ConditionFalse, 143},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := play(t, next(t, stages, c.pod)[0], c.pod)
			if got.Status.Phase != c.phase {
				t.Errorf("phase %s, want %s", got.Status.Phase, c.phase)
			}
			for _, condition := range got.Status.Conditions {
				if condition.Type == corev1.PodReady && condition.Status != c.ready {
					t.Errorf("Ready is %s, want %s", condition.Status, c.ready)
				}
			}
			status := got.Status.ContainerStatuses[0]
			if status.Ready != (c.ready == corev1.ConditionTrue) {
				t.Errorf("the container's ready is %t", status.Ready)
			}
			if c.phase == corev1.PodRunning {
				return
			}
			if status.State.Running != nil || status.State.Terminated == nil || status.State.Terminated.ExitCode != c.exitCode {
				t.Errorf("state %+v, want exit code %d", status.State, c.exitCode)
			}
		})
	}
}

func TestOnlyDeletedPodsThatRunNoMoreAreRemoved(t *testing.T) {
	for _, c := range []struct {
		name string
		pod  *corev1.Pod
		want bool
	}{
		{"ended", deleted(simulatedPod(corev1.PodFailed, "", nil), 30), true},
		{"never started", deleted(simulatedPod(corev1.PodPending, "", nil), 30), true},
		{"still running", deleted(simulatedPod(corev1.PodRunning, "True", nil), 30), false},
		{"being removed already", deleted(simulatedPod(corev1.PodFailed, "", nil), 0), false},
		{"not deleted", simulatedPod(corev1.PodFailed, "", nil), false},
	} {
		if got := reapable(c.pod); got != c.want {
			t.Errorf("%s: %t, want %t", c.name, got, c.want)
		}
	}
}

// play renders the stage's patch and applies it as the API server would.
func play(t *testing.T, stage *lifecycle.Stage, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	none := func(string, bool, string, string, string) []string { return nil }
	renderer := gotpl.NewRenderer(gotpl.FuncMap{
		"NodeIPsWith": func(string) []string { return []string{"10.0.0.1"} }, "PodIPsWith": none,
	})
	var result *corev1.Pod
	_, err := stage.DoSteps(0, nil, pod, renderer, nil, nil, func(patch *lifecycle.Patch) error {
		if patch.Type != types.StrategicMergePatchType || patch.Subresource != "status" {
			t.Errorf("a %s patch of %q", patch.Type, patch.Subresource)
		}
		original, err := json.Marshal(pod)
		if err != nil {
			return err
		}
		changed, err := strategicpatch.StrategicMergePatch(original, patch.Data, corev1.Pod{})
		if err != nil {
			return err
		}
		result = &corev1.Pod{}
		return json.Unmarshal(changed, result)
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if result.ResourceVersion != pod.ResourceVersion {
		t.Errorf("the patch does not name the version it is for")
	}
	return result
}

func BenchmarkMatchingAStage(b *testing.B) {
	stages := loadStages(b)
	pod := simulatedPod(corev1.PodRunning, corev1.ConditionTrue, nil)
	for b.Loop() {
		next(b, stages, pod)
	}
}
