package software

import (
	"context"
	"errors"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

// maxReplicas is what the validating webhook lets a Site have.
const maxReplicas = 5

// operator is a role: a manager of controller-runtime that elects a leader, serves webhooks and keeps a Deployment for each Site.
func operator() error {
	ctrl.SetLogger(zap.New())
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), siteTypes(scheme)); err != nil {
		return err
	}
	config, namespace, err := inCluster()
	if err != nil {
		return err
	}
	manager, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:         scheme,
		LeaderElection: true, LeaderElectionID: "sites", LeaderElectionNamespace: namespace, LeaderElectionReleaseOnCancel: true,
		Metrics:                server.Options{BindAddress: ":8080"},
		HealthProbeBindAddress: ":8081",
		WebhookServer:          webhook.NewServer(webhook.Options{Port: 9443, CertDir: "/certificates"}),
	})
	if err != nil {
		return err
	}
	hooks := siteHooks{}
	sites := &siteReconciler{Client: manager.GetClient(), scheme: scheme, events: manager.GetEventRecorder("sites")}
	if err := errors.Join(
		ctrl.NewWebhookManagedBy(manager, &Site{}).WithDefaulter(hooks).WithValidator(hooks).Complete(),
		ctrl.NewControllerManagedBy(manager).For(&Site{}).Owns(&appsv1.Deployment{}).Complete(sites),
		manager.AddHealthzCheck("ping", healthz.Ping),
		manager.AddReadyzCheck("webhooks", manager.GetWebhookServer().StartedChecker()),
	); err != nil {
		return err
	}
	return manager.Start(ctrl.SetupSignalHandler())
}

// siteReconciler keeps a Deployment for each Site, and says in the Site's status how it is.
type siteReconciler struct {
	client.Client
	scheme *runtime.Scheme
	events events.EventRecorder
}

func (r *siteReconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	site := &Site{}
	if err := r.Get(ctx, request.NamespacedName, site); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if site.DeletionTimestamp != nil {
		return ctrl.Result{}, r.farewell(ctx, site)
	}
	if controllerutil.AddFinalizer(site, siteFinalizer) {
		return ctrl.Result{}, r.Update(ctx, site)
	}
	deployment := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: site.Name, Namespace: site.Namespace}}
	did, err := controllerutil.CreateOrUpdate(ctx, r.Client, deployment, func() error {
		labels := map[string]string{"site": site.Name}
		deployment.Spec.Replicas = site.Spec.Replicas
		deployment.Spec.Selector = &metav1.LabelSelector{MatchLabels: labels}
		deployment.Spec.Template.Labels = labels
		if len(deployment.Spec.Template.Spec.Containers) == 0 {
			deployment.Spec.Template.Spec.Containers = []corev1.Container{{Name: "site"}}
		}
		deployment.Spec.Template.Spec.Containers[0].Image = sampleImage
		deployment.Spec.Template.Spec.TerminationGracePeriodSeconds = ptr.To(int64(1))
		return controllerutil.SetControllerReference(site, deployment, r.scheme)
	})
	if err != nil {
		return ctrl.Result{}, err
	}
	if did == controllerutil.OperationResultCreated {
		r.events.Eventf(site, deployment, corev1.EventTypeNormal, "Deployed", "Deploy", "made deployment %s", deployment.Name)
	}
	return ctrl.Result{}, r.writeStatus(ctx, site, deployment)
}

// farewell lets a Site go. It makes a ConfigMap that tells of it, which is how the test knows.
func (r *siteReconciler) farewell(ctx context.Context, site *Site) error {
	note := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: site.Name + "-was-here", Namespace: site.Namespace}, Data: map[string]string{"owner": site.Spec.Owner}}
	if err := client.IgnoreAlreadyExists(r.Create(ctx, note)); err != nil {
		return err
	}
	if !controllerutil.RemoveFinalizer(site, siteFinalizer) {
		return nil
	}
	return client.IgnoreNotFound(r.Update(ctx, site))
}

func (r *siteReconciler) writeStatus(ctx context.Context, site *Site, deployment *appsv1.Deployment) error {
	before := site.DeepCopyObject().(*Site)
	site.Status.ObservedGeneration, site.Status.ReadyReplicas = site.Generation, deployment.Status.ReadyReplicas
	ready := metav1.Condition{Type: "Ready", Status: metav1.ConditionFalse, Reason: "Waiting", ObservedGeneration: site.Generation,
		Message: fmt.Sprintf("%d of %d are ready", deployment.Status.ReadyReplicas, ptr.Deref(site.Spec.Replicas, 0))}
	if deployment.Status.ObservedGeneration == deployment.Generation && deployment.Status.ReadyReplicas == ptr.Deref(site.Spec.Replicas, 0) {
		ready.Status, ready.Reason = metav1.ConditionTrue, "AllReady"
	}
	meta.SetStatusCondition(&site.Status.Conditions, ready)
	if equality.Semantic.DeepEqual(before.Status, site.Status) {
		return nil
	}
	return r.Status().Patch(ctx, site, client.MergeFrom(before))
}

// siteHooks are the webhooks of admission.
type siteHooks struct{}

// Default implements admission.Defaulter.
func (siteHooks) Default(ctx context.Context, site *Site) error {
	request, err := admission.RequestFromContext(ctx)
	if err != nil {
		return err
	}
	if site.Spec.Replicas == nil {
		site.Spec.Replicas = ptr.To(int32(1))
	}
	if site.Spec.Owner == "" {
		site.Spec.Owner = request.UserInfo.Username
	}
	return nil
}

// ValidateCreate implements admission.Validator.
func (siteHooks) ValidateCreate(_ context.Context, site *Site) (admission.Warnings, error) {
	switch replicas := ptr.Deref(site.Spec.Replicas, 0); {
	case replicas > maxReplicas:
		return nil, fmt.Errorf("a site has at most %d replicas", maxReplicas)
	case replicas == 0:
		return admission.Warnings{"a site without replicas answers nobody"}, nil
	}
	return nil, nil
}

// ValidateUpdate implements admission.Validator.
func (h siteHooks) ValidateUpdate(ctx context.Context, before, site *Site) (admission.Warnings, error) {
	if before.Spec.Owner != site.Spec.Owner {
		return nil, fmt.Errorf("the owner of a site never changes: it is %s", before.Spec.Owner)
	}
	return h.ValidateCreate(ctx, site)
}

// ValidateDelete implements admission.Validator.
func (siteHooks) ValidateDelete(_ context.Context, site *Site) (admission.Warnings, error) {
	if site.Labels["keep"] != "" {
		return nil, fmt.Errorf("%s is kept", site.Name)
	}
	return nil, nil
}
