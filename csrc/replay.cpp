// wgan_fast._C.Replay: a flat list of operator calls, run without Python.
//
// A frozen step of a small critic is some ninety calls of a few microseconds each, and Python
// would take longer to make them than they take to run. Any operator of PyTorch's dispatcher can
// be in the list: it is called boxed, with constants that were converted once and with tensors from
// numbered slots. A slot is emptied after its last use, as a Python variable would be.

#include "replay.h"

#include <ATen/Parallel.h>
#include <ATen/ScalarOps.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>
#include <ATen/core/jit_type.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <torch/csrc/Device.h>
#include <torch/csrc/Dtype.h>
#include <torch/csrc/Generator.h>
#include <torch/csrc/Layout.h>
#include <torch/csrc/MemoryFormat.h>
#include <torch/csrc/autograd/python_variable.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "adam.h"
#include "cpu/joined_parts.h"
#include "side_by_side.h"

namespace wgan_fast {
namespace {

namespace py = pybind11;
using c10::IValue;
using c10::TypeKind;
using Slots = std::vector<at::Tensor>;

constexpr int64_t kNone = -1;

// An argument of a call: a constant, the tensor in a slot, or a list of such tensors and Nones.
struct Argument {
  IValue constant;
  std::vector<int64_t> slots;
  enum { kConstant, kTensor, kTensors, kOptionalTensors } kind = kConstant;

  IValue of(const Slots& tensors) const {
    switch (kind) {
      case kTensor:
        return tensors[slots[0]];
      case kTensors: {
        c10::List<at::Tensor> list;
        list.reserve(slots.size());
        for (const int64_t slot : slots) list.push_back(tensors[slot]);
        return list;
      }
      case kOptionalTensors: {
        c10::List<std::optional<at::Tensor>> list;
        list.reserve(slots.size());
        for (const int64_t slot : slots) {
          list.push_back(slot == kNone ? std::nullopt : std::make_optional(tensors[slot]));
        }
        return list;
      }
      default:
        return constant;
    }
  }
};

struct Call {
  c10::OperatorHandle op;
  std::vector<Argument> arguments;
  std::vector<int64_t> results;  // Per tensor that it returns, lists laid flat: its slot, or kNone.
  std::vector<int64_t> last_uses;  // Slots to empty afterwards.
};

[[noreturn]] void refuse(const c10::Argument& formal, py::handle given) {
  throw py::type_error("argument " + formal.name() + ": expected " + formal.type()->str() +
                       ", got " + py::repr(given).cast<std::string>());
}

at::Scalar number(py::handle given, const c10::Argument& formal) {
  if (py::isinstance<py::bool_>(given)) return given.cast<bool>();
  if (py::isinstance<py::int_>(given)) return given.cast<int64_t>();
  if (py::isinstance<py::float_>(given)) return given.cast<double>();
  refuse(formal, given);
}

// A number in a tensor's place takes part in type promotion as a number.
at::Tensor as_tensor(const at::Scalar& scalar) {
  at::Tensor tensor = c10::scalar_to_tensor(scalar);
  tensor.unsafeGetTensorImpl()->set_wrapped_number(true);
  return tensor;
}

// Integers in an operator's schema are also what PyTorch's enumerations are passed as.
IValue integer(py::handle given, const c10::Argument& formal) {
  PyObject* object = given.ptr();
  if (THPDtype_Check(object)) {
    return static_cast<int64_t>(reinterpret_cast<THPDtype*>(object)->scalar_type);
  }
  if (THPMemoryFormat_Check(object)) {
    return static_cast<int64_t>(reinterpret_cast<THPMemoryFormat*>(object)->memory_format);
  }
  if (THPLayout_Check(object)) {
    return static_cast<int64_t>(reinterpret_cast<THPLayout*>(object)->layout);
  }
  if (py::isinstance<py::int_>(given)) return given.cast<int64_t>();
  refuse(formal, given);
}

template <typename T>
IValue list_of(py::handle given) {
  c10::List<T> list;
  for (const py::handle item : given) list.push_back(item.cast<T>());
  return list;
}

IValue constant_of(py::handle given, const c10::TypePtr& type, const c10::Argument& formal) {
  if (given.is_none()) return IValue();
  switch (type->kind()) {
    case TypeKind::OptionalType:
      return constant_of(given, type->castRaw<c10::OptionalType>()->getElementType(), formal);
    case TypeKind::BoolType:
      return given.cast<bool>();
    case TypeKind::FloatType:
      return given.cast<double>();
    case TypeKind::NumberType:
      return number(given, formal);
    case TypeKind::TensorType:
      if (THPVariable_Check(given.ptr())) return THPVariable_Unpack(given.ptr());
      return as_tensor(number(given, formal));
    case TypeKind::StringType:
      return given.cast<std::string>();
    case TypeKind::DeviceObjType:
      if (!THPDevice_Check(given.ptr())) refuse(formal, given);
      return reinterpret_cast<THPDevice*>(given.ptr())->device;
    case TypeKind::GeneratorType:
      if (!THPGenerator_Check(given.ptr())) refuse(formal, given);
      return reinterpret_cast<THPGenerator*>(given.ptr())->cdata;
    case TypeKind::ListType:
      switch (type->castRaw<c10::ListType>()->getElementType()->kind()) {
        case TypeKind::IntType:
        case TypeKind::SymIntType:
          return list_of<int64_t>(given);
        case TypeKind::FloatType:
          return list_of<double>(given);
        case TypeKind::BoolType:
          return list_of<bool>(given);
        default:
          refuse(formal, given);
      }
    default:
      return integer(given, formal);
  }
}

bool is_tensors(const c10::Argument& formal) {
  const auto* list = formal.type()->castRaw<c10::ListType>();
  return list != nullptr && list->getElementType()->kind() == TypeKind::TensorType;
}

bool is_optional_tensors(const c10::Argument& formal) {
  const auto* list = formal.type()->castRaw<c10::ListType>();
  if (list == nullptr) return false;
  const auto* item = list->getElementType()->castRaw<c10::OptionalType>();
  return item != nullptr && item->getElementType()->kind() == TypeKind::TensorType;
}

// Where a call's argument comes from: ``slots`` are its tensors, absent for a constant.
Argument argument_of(const c10::Argument& formal, py::handle given, py::handle slots) {
  Argument argument;
  if (slots.is_none()) {
    argument.constant = constant_of(given, formal.type(), formal);
    return argument;
  }
  argument.slots = slots.cast<std::vector<int64_t>>();
  argument.kind = is_tensors(formal)            ? Argument::kTensors
                  : is_optional_tensors(formal) ? Argument::kOptionalTensors
                                                : Argument::kTensor;
  return argument;
}

// In here autograd and autocast see nothing of the calls. What is below autograd counts the
// versions of tensors that are written, and ties views to their bases, which keeps these alive.
// That is for tensors that somebody else has, too; others go without.
struct BelowAutograd {
  explicit BelowAutograd(bool shares_memory) {
    if (!shares_memory) untracked.emplace(c10::DispatchKey::ADInplaceOrView);
  }

  at::NoGradGuard no_grad;
  at::AutoDispatchBelowAutograd below_autograd;
  c10::impl::ExcludeDispatchKeyGuard uncast{
      c10::DispatchKeySet({c10::DispatchKey::AutocastCPU, c10::DispatchKey::AutocastCUDA})};
  std::optional<c10::impl::ExcludeDispatchKeyGuard> untracked;
};

// The results of all calls, by place; the calls' own lists are emptied.
PartsByPlace by_place(std::vector<Slots>& results) {
  PartsByPlace places(results[0].size());
  for (Slots& of_one : results) {
    for (size_t place = 0; place < of_one.size(); ++place) {
      places[place].push_back(std::move(of_one[place]));
    }
  }
  return places;
}

py::list wrapped(const std::vector<at::Tensor>& results) {
  py::list list(results.size());
  for (size_t i = 0; i < results.size(); ++i) {
    list[i] = results[i].defined() ? py::reinterpret_steal<py::object>(THPVariable_Wrap(results[i]))
                                   : py::none();
  }
  return list;
}

// Replay::mean of a function in Python that gives up the interpreter while it computes.
py::list mean_of_calls(const py::function& function, const std::vector<py::tuple>& given,
                       const std::vector<int64_t>& rows) {
  std::vector<Slots> results(given.size());
  std::vector<at::Tensor> means;
  {
    const py::gil_scoped_release release;
    side_by_side(given.size(), [&](size_t i) {
      const py::gil_scoped_acquire acquire;
      for (const py::handle result : function(*given[i])) {
        results[i].push_back(result.is_none() ? at::Tensor() : THPVariable_Unpack(result.ptr()));
      }
    });
    const BelowAutograd here(true);
    means = joined_parts(by_place(results), rows);
  }
  return wrapped(means);
}

class Replay {
 public:
  Replay(int64_t inputs, int64_t slots, bool shares_memory)
      : inputs_(inputs), slots_(slots), shares_memory_(shares_memory) {}

  // Add a call: of each argument its position in the schema, its value, and its tensors' slots.
  void add(const std::string& name, const std::string& overload,
           const std::vector<std::tuple<int64_t, py::object, py::object>>& given,
           std::vector<int64_t> results, std::vector<int64_t> last_uses) {
    c10::OperatorHandle op =
        c10::Dispatcher::singleton().findSchemaOrThrow(name.c_str(), overload.c_str());
    const auto& formals = op.schema().arguments();
    std::vector<Argument> arguments(formals.size());
    for (size_t i = 0; i < formals.size(); ++i) {
      if (formals[i].default_value()) arguments[i].constant = *formals[i].default_value();
    }
    for (const auto& [position, value, slots] : given) {
      arguments.at(position) = argument_of(formals.at(position), value, slots);
    }
    calls_.push_back({op, std::move(arguments), std::move(results), std::move(last_uses)});
  }

  // The slots of the results, kNone for a None.
  void finish(std::vector<int64_t> results) { results_ = std::move(results); }

  py::list operator()(const py::args& given) const {
    Slots slots = filled(given);
    {
      const py::gil_scoped_release release;
      const BelowAutograd here(shares_memory_);
      torch::jit::Stack stack;
      for (const Call& call : calls_) make(call, slots, stack);
    }
    return wrapped(results_of(slots));
  }

  // The means of the results over equal parts of the inputs from number ``whole`` on, those with
  // an axis, which run side by side, each in one thread; at the places in ``rows``, the results one
  // after the other.
  py::list mean(const py::tuple& given, int64_t whole, int64_t parts,
                const std::vector<int64_t>& rows) const {
    return means_then(given, whole, parts, rows, [](PartsByPlace&) {});
  }

  // The same, and a step by the results that have these places, the gradients of its parameters.
  py::list mean_and_step(const py::tuple& given, int64_t whole, int64_t parts,
                         const std::vector<int64_t>& rows, const Adam& adam,
                         const std::vector<int64_t>& gradients) const {
    return means_then(given, whole, parts, rows, [&](PartsByPlace& places) {
      std::vector<Slots*> of_parameters;
      for (const int64_t place : gradients) of_parameters.push_back(&places.at(place));
      adam.step_by_means(of_parameters);
    });
  }

 private:
  Slots filled(const py::tuple& given) const {
    if (static_cast<int64_t>(given.size()) != inputs_) {
      throw py::type_error("expected " + std::to_string(inputs_) + " tensors, got " +
                           std::to_string(given.size()));
    }
    Slots slots(slots_);
    for (int64_t i = 0; i < inputs_; ++i) {
      const py::handle tensor = given[i];
      if (!THPVariable_Check(tensor.ptr())) throw py::type_error("expected tensors alone");
      slots[i] = THPVariable_Unpack(tensor.ptr());
    }
    return slots;
  }

  // ``step`` may leave one tensor at some places, for all parts.
  template <typename Step>
  py::list means_then(const py::tuple& given, int64_t whole, int64_t parts,
                      const std::vector<int64_t>& rows, const Step& step) const {
    const Slots slots = filled(given);
    std::vector<at::Tensor> means;
    {
      const py::gil_scoped_release release;
      PartsByPlace places;
      {
        const BelowAutograd here(shares_memory_);
        std::vector<Slots> calls = in_parts(slots, whole, parts);
        make_all(calls);
        for (Slots& of_one : calls) of_one = results_of(of_one);
        places = by_place(calls);
      }
      step(places);
      const BelowAutograd here(shares_memory_);
      means = joined_parts(std::move(places), rows);
    }
    return wrapped(means);
  }

  std::vector<Slots> in_parts(const Slots& slots, int64_t whole, int64_t parts) const {
    TORCH_CHECK(parts > 0, "expected a positive number of parts, got ", parts);
    std::vector<Slots> calls(parts, slots);
    for (int64_t i = whole; i < inputs_; ++i) {
      if (slots[i].dim() == 0) continue;
      TORCH_CHECK(slots[i].size(0) % parts == 0, "expected ", parts,
                  " equal parts of every tensor, got one of ", slots[i].size(0), " rows");
      const std::vector<at::Tensor> pieces = slots[i].chunk(parts);
      for (int64_t part = 0; part < parts; ++part) calls[part][i] = pieces.at(part);
    }
    return calls;
  }

  std::vector<at::Tensor> results_of(const Slots& slots) const {
    std::vector<at::Tensor> results;
    for (const int64_t slot : results_) {
      results.push_back(slot == kNone ? at::Tensor() : slots[slot]);
    }
    return results;
  }

  void make_all(std::vector<Slots>& calls) const {
    if (c10::impl::TorchDispatchModeTLS::any_modes_set()) {
      // Somebody in Python sees every operator, and hears of them in the order of one call.
      torch::jit::Stack stack;
      for (const Call& call : calls_) {
        for (Slots& slots : calls) make(call, slots, stack);
      }
      return;
    }
    side_by_side(calls.size(), [&](size_t i) {
      torch::jit::Stack stack;
      for (const Call& call : calls_) make(call, calls[i], stack);
    });
  }

  static void make(const Call& call, Slots& slots, torch::jit::Stack& stack) {
    stack.clear();
    for (const Argument& argument : call.arguments) stack.push_back(argument.of(slots));
    call.op.callBoxed(&stack);
    keep(call.results, stack, slots);
    for (const int64_t slot : call.last_uses) slots[slot].reset();
  }

  static void keep(const std::vector<int64_t>& results, torch::jit::Stack& returned, Slots& slots) {
    size_t position = 0;
    const auto next = [&](at::Tensor tensor) {
      const int64_t slot = position < results.size() ? results[position] : kNone;
      ++position;
      if (slot != kNone) slots[slot] = std::move(tensor);
    };
    for (IValue& value : returned) {
      if (value.isTensor()) {
        next(std::move(value).toTensor());
      } else if (value.isTensorList()) {
        for (at::Tensor& tensor : value.toTensorVector()) next(std::move(tensor));
      } else {
        ++position;
      }
    }
  }

  int64_t inputs_;
  int64_t slots_;
  bool shares_memory_;
  std::vector<Call> calls_;
  std::vector<int64_t> results_;
};

}  // namespace

void bind_replay(py::module_& m) {
  py::class_<Replay>(m, "Replay", "A flat list of operator calls, run without Python.")
      .def(py::init<int64_t, int64_t, bool>(), py::arg("inputs"), py::arg("slots"),
           py::arg("shares_memory"))
      .def("add", &Replay::add, py::arg("name"), py::arg("overload"), py::arg("arguments"),
           py::arg("results"), py::arg("last_uses"))
      .def("finish", &Replay::finish, py::arg("results"))
      .def("mean", &Replay::mean, py::arg("given"), py::arg("whole"), py::arg("parts"),
           py::arg("rows"))
      .def("mean_and_step", &Replay::mean_and_step, py::arg("given"), py::arg("whole"),
           py::arg("parts"), py::arg("rows"), py::arg("adam"), py::arg("gradients"))
      .def("__call__", &Replay::operator());
  m.def("mean_of_calls", &mean_of_calls, py::arg("function"), py::arg("calls"), py::arg("rows"));
#if AT_PARALLEL_OPENMP && defined(_OPENMP)
  m.attr("RUNS_SIDE_BY_SIDE") = true;
#else
  m.attr("RUNS_SIDE_BY_SIDE") = false;
#endif
}

}  // namespace wgan_fast
