// Package aggregation keeps the rules of ClusterRoles that have an aggregation rule: the union of the rules of all
// ClusterRoles that its selectors match. One loop per cluster runs it, on the leader. Level-triggered: each change of
// a ClusterRole looks at the roles that aggregate, and writes those whose rules differ.
package aggregation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	rbacapply "k8s.io/client-go/applyconfigurations/rbac/v1"
	rbacinformers "k8s.io/client-go/informers/rbac/v1"
	"k8s.io/client-go/kubernetes"
	rbaclisters "k8s.io/client-go/listers/rbac/v1"
	"k8s.io/client-go/tools/cache"
)

const (
	// fieldManager owns the rules, as in Kubernetes.
	fieldManager = "clusterrole-aggregation-controller"
	// retrySeconds is the pause after a pass with errors.
	retrySeconds = 5
)

// Plan returns the roles whose rules are not what they aggregate to, with the rules they should have, sorted by name.
// Pure; roles are not changed. A role with an invalid selector is told in the error, and left as it is.
func Plan(roles []*rbacv1.ClusterRole) ([]Change, error) {
	sorted := slices.Clone(roles)
	slices.SortFunc(sorted, func(a, b *rbacv1.ClusterRole) int { return cmp.Compare(a.Name, b.Name) })
	var changes []Change
	var errs []error
	for _, role := range sorted {
		if role.AggregationRule == nil {
			continue
		}
		rules, err := collect(role, sorted)
		if err != nil {
			errs = append(errs, fmt.Errorf("aggregate cluster role %s: %w", role.Name, err))
			continue
		}
		if !equality.Semantic.DeepEqual(rules, role.Rules) {
			changes = append(changes, Change{Role: role.Name, Rules: rules})
		}
	}
	return changes, errors.Join(errs...)
}

// Change is what a role's rules shall become.
type Change struct {
	Role  string
	Rules []rbacv1.PolicyRule
}

// collect joins the rules of the roles, in the order of their names, that the selectors of one match; each rule once.
func collect(role *rbacv1.ClusterRole, sorted []*rbacv1.ClusterRole) ([]rbacv1.PolicyRule, error) {
	var rules []rbacv1.PolicyRule
	for i := range role.AggregationRule.ClusterRoleSelectors {
		selector, err := metav1.LabelSelectorAsSelector(&role.AggregationRule.ClusterRoleSelectors[i])
		if err != nil {
			return nil, err
		}
		for _, other := range sorted {
			if other.Name == role.Name || !selector.Matches(labels.Set(other.Labels)) {
				continue
			}
			for _, rule := range other.Rules {
				if !slices.ContainsFunc(rules, func(r rbacv1.PolicyRule) bool { return equality.Semantic.DeepEqual(r, rule) }) {
					rules = append(rules, *rule.DeepCopy())
				}
			}
		}
	}
	return rules, nil
}

// Loop applies plans. Make it with [New], run it once.
type Loop struct {
	client  kubernetes.Interface
	lister  rbaclisters.ClusterRoleLister
	synced  cache.InformerSynced
	trigger chan struct{}
	log     *slog.Logger
}

// New watches cluster roles; the informer must not have been started.
func New(client kubernetes.Interface, roles rbacinformers.ClusterRoleInformer, log *slog.Logger) (*Loop, error) {
	l := &Loop{client: client, lister: roles.Lister(), synced: roles.Informer().HasSynced, trigger: make(chan struct{}, 1), log: log}
	_, err := roles.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { l.wake() },
		UpdateFunc: func(any, any) { l.wake() },
		DeleteFunc: func(any) { l.wake() },
	})
	if err != nil {
		return nil, fmt.Errorf("watch cluster roles: %w", err)
	}
	return l, nil
}

func (l *Loop) wake() {
	select {
	case l.trigger <- struct{}{}:
	default: // a pass is due already
	}
}

// Run works until ctx ends.
func (l *Loop) Run(ctx context.Context) {
	if !cache.WaitForCacheSync(ctx.Done(), l.synced) {
		return
	}
	l.wake()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.trigger:
		}
		err := l.pass(ctx)
		if err == nil || ctx.Err() != nil {
			continue
		}
		l.log.Warn("aggregate cluster roles", "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(retrySeconds * time.Second):
			l.wake()
		}
	}
}

func (l *Loop) pass(ctx context.Context) error {
	roles, err := l.lister.List(labels.Everything())
	if err != nil {
		return fmt.Errorf("list cluster roles: %w", err)
	}
	changes, err := Plan(roles)
	errs := []error{err}
	for _, c := range changes {
		config := rbacapply.ClusterRole(c.Role)
		for i := range c.Rules {
			r := &c.Rules[i]
			config.WithRules(rbacapply.PolicyRule().WithVerbs(r.Verbs...).WithAPIGroups(r.APIGroups...).WithResources(r.Resources...).
				WithResourceNames(r.ResourceNames...).WithNonResourceURLs(r.NonResourceURLs...))
		}
		_, err := l.client.RbacV1().ClusterRoles().Apply(ctx, config, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
		if err != nil {
			errs = append(errs, fmt.Errorf("write cluster role %s: %w", c.Role, err))
		}
	}
	return errors.Join(errs...)
}
