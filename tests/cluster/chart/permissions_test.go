// Who may do what by the chart, beside deploy/rbac.yaml and deploy/reports.yaml.
package chart

import (
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
)

// permissions are rules one by one, as group/resource verb, and with resourceNames behind them.
func permissions(rules []rbacv1.PolicyRule, names bool) []string {
	var all []string
	for _, rule := range rules {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					one := group + "/" + resource + " " + verb
					if names && len(rule.ResourceNames) > 0 {
						one += " " + strings.Join(rule.ResourceNames, ",")
					}
					all = append(all, one)
				}
			}
		}
	}
	sort.Strings(all)
	return slices.Compact(all)
}

func clusterRoles(t *testing.T, documents []string) map[string][]string {
	all := map[string][]string{}
	for _, role := range of[rbacv1.ClusterRole](t, documents, "ClusterRole") {
		all[role.Name] = permissions(role.Rules, false)
	}
	return all
}

func roles(t *testing.T, documents []string) map[string][]string {
	all := map[string][]string{}
	for _, role := range of[rbacv1.Role](t, documents, "Role") {
		all[role.Namespace+"/"+role.Name] = permissions(role.Rules, true)
	}
	return all
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: has\n  %s\nwant\n  %s", what, strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func TestPermissionsAreThoseOfTheRawManifests(t *testing.T) {
	want := clusterRoles(t, append(raw(t, "rbac.yaml"), raw(t, "reports.yaml")...))
	got := clusterRoles(t, render(t, "--set", "claims.enabled=true,reports.enabled=true"))
	for name := range got {
		same(t, name, got[name], want[strings.TrimPrefix(name, "stoker-system:")])
	}
	if len(got) != 3 {
		t.Errorf("%d ClusterRoles, and not those of the operator, of claims and of reports", len(got))
	}
	features := roles(t, render(t, "--set", "features.execProbes.namespaces={n},features.redisCredentials.namespaces={n}",
		"--set", "features.podLogs.namespaces={n}"))
	same(t, "probes by command", features["n/stoker-exec-probes"], want["stoker-exec-probes"])
	same(t, "credentials", features["n/stoker-redis-credentials"], want["stoker-redis-credentials"])
	same(t, "logs", features["n/stoker-pod-logs"], want["stoker-pod-logs"])
}

func TestNothingIsGrantedUnlessItIsAskedFor(t *testing.T) {
	documents := render(t)
	for name, rules := range clusterRoles(t, documents) {
		for _, rule := range rules {
			for _, never := range []string{"/secrets ", "/pods/exec ", "/pods/log ", "tokenreviews ", "subjectaccessreviews "} {
				if strings.Contains(rule, never) {
					t.Errorf("%s may %s", name, rule)
				}
			}
		}
	}
	all := roles(t, documents)
	lease := []string{}
	for _, verb := range []string{"create", "get", "list", "update", "watch"} {
		lease = append(lease, "coordination.k8s.io/leases "+verb)
	}
	same(t, "the Lease", all["stoker-system/stoker-lease"], lease)
	if len(all) != 1 {
		t.Errorf("there are other Roles than that of the Lease: %v", all)
	}
	if one := roles(t, render(t, "--set", "replicas=1")); len(one) != 0 {
		t.Errorf("a single operator needs no Lease: %v", one)
	}
}

func TestWithNamespacesOnlyWhatHasNoneIsGrantedEverywhere(t *testing.T) {
	everywhere := clusterRoles(t, render(t, "--set", "reports.enabled=true"))
	documents := render(t, "--set", "namespaces={games,builds},reports.enabled=true")
	without := []string{"/nodes list", "/nodes watch", "apiextensions.k8s.io/customresourcedefinitions get"}
	operator, reports := "stoker-system:stoker", "stoker-system:stoker-reports"
	same(t, operator, clusterRoles(t, documents)[operator], without)
	same(t, reports, clusterRoles(t, documents)[reports], without[:2])
	for _, namespace := range []string{"games", "builds"} {
		own := func(name string, of string) {
			got := append(slices.Clone(roles(t, documents)[namespace+"/"+name]), clusterRoles(t, documents)[of]...)
			sort.Strings(got)
			same(t, namespace+"/"+name, got, everywhere[of])
		}
		own("stoker", operator)
		own("stoker-reports", reports)
	}
}

func TestTheReplicaThatLeadsMayLabelItsPodOnlyWhereClaimsAreServed(t *testing.T) {
	leader := func(values string) []string {
		return roles(t, render(t, "--set", "namespaces={games},"+values))["stoker-system/stoker-leader"]
	}
	same(t, "with claims", leader("claims.enabled=true"), []string{"/pods patch"})
	same(t, "without claims", leader("claims.enabled=false"), nil)
	same(t, "with one replica", leader("claims.enabled=true,replicas=1"), nil)
}

func TestSecretsMayBeNamed(t *testing.T) {
	got := roles(t, render(t, "--set", "features.redisCredentials.namespaces={n},features.redisCredentials.secretNames={a,b}"))
	same(t, "credentials", got["n/stoker-redis-credentials"], []string{"/secrets get a,b"})
}

func TestNoRuleHasAWildcard(t *testing.T) {
	check := func(t *testing.T, documents []string) {
		var rules []rbacv1.PolicyRule
		for _, role := range of[rbacv1.ClusterRole](t, documents, "ClusterRole") {
			rules = append(rules, role.Rules...)
		}
		for _, role := range of[rbacv1.Role](t, documents, "Role") {
			rules = append(rules, role.Rules...)
		}
		for _, rule := range rules {
			for _, word := range slices.Concat(rule.APIGroups, rule.Resources, rule.Verbs, rule.NonResourceURLs) {
				if strings.Contains(word, "*") {
					t.Errorf("a wildcard in %v", rule)
				}
			}
		}
	}
	forAllValues(t, check)
	t.Run("raw", func(t *testing.T) { check(t, append(raw(t, "rbac.yaml"), raw(t, "reports.yaml")...)) })
}

// Each role is bound, to an account that pods have, and each binding is of a role that is there.
func TestBindingsAreOfRolesAndAccountsThatAreThere(t *testing.T) {
	forAllValues(t, func(t *testing.T, documents []string) {
		unbound := map[string]bool{}
		for _, role := range of[rbacv1.ClusterRole](t, documents, "ClusterRole") {
			unbound[filepath.Join("ClusterRole", role.Name)] = true
		}
		for _, role := range of[rbacv1.Role](t, documents, "Role") {
			unbound[filepath.Join("Role", role.Namespace, role.Name)] = true
		}
		accounts := map[string]bool{}
		for _, pod := range templates(t, documents) {
			accounts[pod.Spec.ServiceAccountName] = true
		}
		bound := func(role string, subjects []rbacv1.Subject) {
			if !unbound[role] {
				t.Errorf("%s is bound, and is not there or is bound twice", role)
			}
			delete(unbound, role)
			for _, subject := range subjects {
				if subject.Kind != "ServiceAccount" || subject.Namespace != "stoker-system" || !accounts[subject.Name] {
					t.Errorf("%s is bound to %v, which no pod has", role, subject)
				}
			}
		}
		for _, binding := range of[rbacv1.ClusterRoleBinding](t, documents, "ClusterRoleBinding") {
			bound(filepath.Join("ClusterRole", binding.RoleRef.Name), binding.Subjects)
		}
		for _, binding := range of[rbacv1.RoleBinding](t, documents, "RoleBinding") {
			bound(filepath.Join("Role", binding.Namespace, binding.RoleRef.Name), binding.Subjects)
		}
		for role := range unbound {
			t.Errorf("%s is not bound", role)
		}
	})
}
