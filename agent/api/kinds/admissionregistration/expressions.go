package admissionregistration

import (
	"slices"
	"strings"
	"sync"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"
)

// maxMatchConditions is how many conditions a webhook or policy may have.
const maxMatchConditions = 64

// compilers are the environments of expressions, made when somebody first needs one: they are large.
type compilers struct {
	environment func() *environment.EnvSet
	plain       func() plugincel.Compiler
}

func newCompilers() *compilers {
	c := &compilers{environment: sync.OnceValue(func() *environment.EnvSet {
		return environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion())
	})}
	c.plain = sync.OnceValue(func() plugincel.Compiler { return plugincel.NewCompiler(c.environment()) })
	return c
}

// withVariables returns a compiler that learns the variables of one policy.
func (c *compilers) withVariables() (*plugincel.CompositedCompiler, error) {
	return plugincel.NewCompositedCompiler(c.environment())
}

// expressions checks the expressions of one object. Those that were stored before are read as they were then.
type expressions struct {
	compiler plugincel.Compiler
	stored   []string
	// params says that expressions may use the parameters of a policy.
	params bool
}

// mode says with which functions an expression may be written.
func (e *expressions) mode(expression string) environment.Type {
	if slices.Contains(e.stored, expression) {
		return environment.StoredExpressions
	}
	return environment.NewExpressions
}

// compile reports why an expression cannot be evaluated. authorizer says that it may ask what users may do, patches
// that it may make patches.
func (e *expressions) compile(x plugincel.ExpressionAccessor, authorizer, patches bool, path *field.Path) field.ErrorList {
	options := plugincel.OptionalVariableDeclarations{HasParams: e.params, HasAuthorizer: authorizer, HasPatchTypes: patches}
	return compileError(e.compiler.CompileCELExpression(x, options, e.mode(x.GetExpression())), path)
}

func compileError(result plugincel.CompilationResult, path *field.Path) field.ErrorList {
	switch err := result.Error; {
	case err == nil:
		return nil
	case err.Type == apiservercel.ErrorTypeRequired:
		return field.ErrorList{field.Required(path, err.Detail)}
	case err.Type == apiservercel.ErrorTypeInvalid:
		return field.ErrorList{field.Invalid(path, result.ExpressionAccessor.GetExpression(), err.Detail)}
	default:
		return field.ErrorList{field.InternalError(path, err)}
	}
}

func (e *expressions) conditions(conditions []admissionv1.MatchCondition, path *field.Path) (errs field.ErrorList) {
	if len(conditions) > maxMatchConditions {
		errs = append(errs, field.TooMany(path, len(conditions), maxMatchConditions))
	}
	seen := map[string]bool{}
	for i, c := range conditions {
		at := path.Index(i)
		if trimmed := strings.TrimSpace(c.Expression); trimmed == "" {
			errs = append(errs, field.Required(at.Child("expression"), ""))
		} else {
			errs = append(errs, e.compile(&matchconditions.MatchCondition{Expression: trimmed}, true, false, at.Child("expression"))...)
		}
		if c.Name == "" {
			errs = append(errs, field.Required(at.Child("name"), ""))
			continue
		}
		errs = append(errs, validateQualified(c.Name, at.Child("name"))...)
		if seen[c.Name] {
			errs = append(errs, field.Duplicate(at.Child("name"), c.Name))
		}
		seen[c.Name] = true
	}
	return errs
}

func validateQualified(name string, path *field.Path) (errs field.ErrorList) {
	for _, text := range validation.IsQualifiedName(name) {
		errs = append(errs, field.Invalid(path, name, text))
	}
	return errs
}

func conditionExpressions(conditions []admissionv1.MatchCondition) []string {
	all := make([]string, len(conditions))
	for i, c := range conditions {
		all[i] = strings.TrimSpace(c.Expression)
	}
	return all
}
