// What the Helm chart renders, tried by Kubernetes' own code without a cluster: its validation, its Pod Security checks, and
// the permissions beside those of the raw manifests.
package chart

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/apis/apps"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/apis/networking"
	_ "k8s.io/kubernetes/pkg/apis/networking/install"
	networkingvalidation "k8s.io/kubernetes/pkg/apis/networking/validation"
	"k8s.io/kubernetes/pkg/apis/policy"
	_ "k8s.io/kubernetes/pkg/apis/policy/install"
	policyvalidation "k8s.io/kubernetes/pkg/apis/policy/validation"
	"k8s.io/kubernetes/pkg/apis/rbac"
	_ "k8s.io/kubernetes/pkg/apis/rbac/install"
	rbacvalidation "k8s.io/kubernetes/pkg/apis/rbac/validation"
	"k8s.io/pod-security-admission/api"
	podsecurity "k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"
)

const root = "../../.."

// render is what helm makes of the chart, object by object.
func render(t *testing.T, options ...string) []string {
	t.Helper()
	helm := filepath.Join(root, "target/cluster/bin/helm")
	if _, err := os.Stat(helm); err != nil {
		t.Fatalf("%v: hack/setup.sh chart builds it", err)
	}
	args := append([]string{"template", "stoker", filepath.Join(root, "deploy/helm/stoker"), "--namespace", "stoker-system",
		"--set", "crds.install=false"}, options...)
	var said bytes.Buffer
	cmd := exec.Command(helm, args...)
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("helm %s: %v: %s", strings.Join(args, " "), err, said.String())
	}
	return documents(string(out))
}

func documents(text string) []string {
	var all []string
	for _, document := range regexp.MustCompile(`(?m)^---$`).Split(text, -1) {
		if strings.Contains(document, "kind:") {
			all = append(all, document)
		}
	}
	return all
}

// forAllValues runs a test with the chart's own values and with each set of deploy/tests/values.
func forAllValues(t *testing.T, test func(*testing.T, []string)) {
	t.Run("none", func(t *testing.T) { test(t, render(t)) })
	files, err := filepath.Glob(filepath.Join(root, "deploy/tests/values/*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no values: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) { test(t, render(t, "--values", file)) })
	}
}

// of decodes the documents of a kind.
func of[T any](t *testing.T, documents []string, kind string) []T {
	t.Helper()
	var all []T
	for _, document := range documents {
		var meta metav1.TypeMeta
		if err := yaml.Unmarshal([]byte(document), &meta); err != nil {
			t.Fatalf("%v in\n%s", err, document)
		}
		if meta.Kind != kind {
			continue
		}
		var object T
		if err := yaml.UnmarshalStrict([]byte(document), &object); err != nil {
			t.Fatalf("%s: %v in\n%s", kind, err, document)
		}
		all = append(all, object)
	}
	return all
}

func validate(object runtime.Object) field.ErrorList {
	switch object := object.(type) {
	case *apps.Deployment:
		return appsvalidation.ValidateDeployment(object, corevalidation.PodValidationOptions{})
	case *apps.StatefulSet:
		return appsvalidation.ValidateStatefulSet(object, corevalidation.PodValidationOptions{})
	case *core.Service:
		return corevalidation.ValidateServiceCreate(object)
	case *core.ServiceAccount:
		return corevalidation.ValidateServiceAccount(object)
	case *core.Secret:
		return corevalidation.ValidateSecret(object)
	case *core.ConfigMap:
		return corevalidation.ValidateConfigMap(object)
	case *core.Namespace:
		return corevalidation.ValidateNamespace(object)
	case *networking.NetworkPolicy:
		return networkingvalidation.ValidateNetworkPolicy(object, networkingvalidation.NetworkPolicyValidationOptions{})
	case *policy.PodDisruptionBudget:
		return policyvalidation.ValidatePodDisruptionBudget(object, policyvalidation.PodDisruptionBudgetValidationOptions{})
	case *rbac.Role:
		return rbacvalidation.ValidateRole(object)
	case *rbac.RoleBinding:
		return rbacvalidation.ValidateRoleBinding(object)
	case *rbac.ClusterRole:
		return rbacvalidation.ValidateClusterRole(object, rbacvalidation.ClusterRoleValidationOptions{})
	case *rbac.ClusterRoleBinding:
		return rbacvalidation.ValidateClusterRoleBinding(object)
	}
	return field.ErrorList{field.InternalError(nil, errUnknown(reflect.TypeOf(object).String()))}
}

type errUnknown string

func (e errUnknown) Error() string { return "this test knows no validation of " + string(e) }

// valid fails for what the API server would refuse, unknown fields among it.
func valid(t *testing.T, documents []string) {
	t.Helper()
	strict := serializer.NewCodecFactory(legacyscheme.Scheme, serializer.EnableStrict).UniversalDecoder()
	for _, document := range documents {
		if strings.Contains(document, "apiVersion: monitoring.coreos.com/") {
			continue
		}
		object, _, err := strict.Decode([]byte(document), nil, nil)
		if err != nil {
			t.Errorf("%v in\n%s", err, document)
			continue
		}
		if errs := validate(object); len(errs) > 0 {
			t.Errorf("%v in\n%s", errs.ToAggregate(), document)
		}
	}
}

func TestTheApiServerWouldTakeEachObject(t *testing.T) {
	forAllValues(t, valid)
}

func TestRawManifestsAreValidToo(t *testing.T) {
	for _, file := range []string{"rbac.yaml", "reports.yaml", "manifests/namespace.yaml", "manifests/operator.yaml",
		"manifests/reports/reports.yaml", "manifests/reports/operator.yaml"} {
		t.Run(file, func(t *testing.T) { valid(t, raw(t, file)) })
	}
}

func raw(t *testing.T, file string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "deploy", file))
	if err != nil {
		t.Fatal(err)
	}
	return documents(string(text))
}

func TestNoTwoObjectsHaveOneName(t *testing.T) {
	forAllValues(t, func(t *testing.T, documents []string) {
		seen := map[string]bool{}
		for _, document := range documents {
			var object unstructured.Unstructured
			if err := yaml.Unmarshal([]byte(document), &object.Object); err != nil {
				t.Fatal(err)
			}
			key := strings.Join([]string{object.GetKind(), object.GetNamespace(), object.GetName()}, "/")
			if seen[key] {
				t.Errorf("%s is there twice", key)
			}
			seen[key] = true
		}
	})
}

// templates are those of all pods.
func templates(t *testing.T, documents []string) []corev1.PodTemplateSpec {
	t.Helper()
	var all []corev1.PodTemplateSpec
	for _, deployment := range of[appsv1.Deployment](t, documents, "Deployment") {
		all = append(all, deployment.Spec.Template)
	}
	for _, set := range of[appsv1.StatefulSet](t, documents, "StatefulSet") {
		all = append(all, set.Spec.Template)
	}
	if len(all) == 0 {
		t.Fatal("there are no pods")
	}
	return all
}

func TestPodsMeetPodSecurityRestricted(t *testing.T) {
	checks, err := podsecurity.NewEvaluator(podsecurity.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	forAllValues(t, func(t *testing.T, documents []string) {
		for _, pod := range templates(t, documents) {
			level := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
			for _, result := range checks.EvaluatePod(level, &pod.ObjectMeta, &pod.Spec) {
				if !result.Allowed {
					t.Errorf("%s: %s", result.ForbiddenReason, result.ForbiddenDetail)
				}
			}
			for _, container := range pod.Spec.Containers {
				if only := container.SecurityContext.ReadOnlyRootFilesystem; only == nil || !*only {
					t.Errorf("the root of %s can be written to", container.Name)
				}
			}
		}
	})
}

func TestVariablesAreThoseOfTheProgram(t *testing.T) {
	var flags []string
	for _, file := range []string{"run.rs", "reports.rs", "service.rs"} {
		source, err := os.ReadFile(filepath.Join(root, "host/cli/src", file))
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range regexp.MustCompile(`env = "(STOKER_\w+)"`).FindAllSubmatch(source, -1) {
			flags = append(flags, string(match[1]))
		}
	}
	forAllValues(t, func(t *testing.T, documents []string) {
		for _, pod := range templates(t, documents) {
			for _, variable := range pod.Spec.Containers[0].Env {
				if strings.HasPrefix(variable.Name, "STOKER_") && !slices.Contains(flags, variable.Name) {
					t.Errorf("no flag is %s", variable.Name)
				}
			}
		}
	})
}

// `stoker explain` forwards a port of these pods.
func TestTheCommandLineFindsTheOperatorsPodsAndNoOthers(t *testing.T) {
	forAllValues(t, func(t *testing.T, documents []string) {
		for _, pod := range templates(t, documents) {
			if found := pod.Labels["app.kubernetes.io/name"] == "stoker"; found != (pod.Spec.Containers[0].Name == "operator") {
				t.Errorf("%s is found: %t", pod.Spec.Containers[0].Name, found)
			}
		}
	})
}

func TestSelectorsFindThePodsOfTheirOwn(t *testing.T) {
	forAllValues(t, func(t *testing.T, documents []string) {
		pods := templates(t, documents)
		found := func(selector map[string]string) int {
			count := 0
			for _, pod := range pods {
				matches := true
				for key, value := range selector {
					matches = matches && pod.Labels[key] == value
				}
				if matches {
					count++
				}
			}
			return count
		}
		for _, service := range of[corev1.Service](t, documents, "Service") {
			// This the operator puts on its pod itself.
			delete(service.Spec.Selector, "stoker.dev/leader")
			if found(service.Spec.Selector) != 1 {
				t.Errorf("the Service %s is for other than one kind of pod", service.Name)
			}
		}
	})
}

func TestClaimsReachTheReplicaThatLeads(t *testing.T) {
	for replicas, want := range map[string]string{"1": "", "2": "true"} {
		documents := render(t, "--set", "claims.enabled=true,replicas="+replicas)
		for _, service := range of[corev1.Service](t, documents, "Service") {
			if got := service.Spec.Selector["stoker.dev/leader"]; service.Name == "stoker-claims" && got != want {
				t.Errorf("%s replicas: %q", replicas, got)
			}
		}
		marks := slices.ContainsFunc(templates(t, documents)[0].Spec.Containers[0].Env, func(variable corev1.EnvVar) bool {
			return variable.Name == "POD_NAMESPACE"
		})
		if marks != (want != "") {
			t.Errorf("%s replicas: the one that leads says so: %t", replicas, marks)
		}
	}
}
