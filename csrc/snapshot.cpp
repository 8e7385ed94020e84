// wgan_fast._C.Snapshot: whether modules and arguments are what they were, told in a microsecond.
//
// A frozen step asks that in every call. Asked in Python, a fact after the other, it takes as long
// as ten kernels of a small critic. What is compared are the facts of wgan_fast/signature.py, and
// the number of threads.

#include "snapshot.h"

#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/Tensor.h>
#include <pybind11/stl.h>
#include <torch/csrc/autograd/python_variable.h>

#include <array>
#include <tuple>
#include <utility>
#include <vector>

namespace wgan_fast {
namespace {

namespace py = pybind11;

// Values whose types make them facts: immutable, so that the same object is the same value; and
// dictionaries, whose contents are watched for themselves.
bool is_fact(PyObject* value) {
  return value == Py_None || PyDict_Check(value) || PyBool_Check(value) ||
         PyLong_CheckExact(value) || PyFloat_CheckExact(value) || PyUnicode_CheckExact(value) ||
         PyTuple_CheckExact(value);
}

bool is_any(PyObject*) { return true; }

// body(value) for the values of a dictionary, in order, until it returns false.
template <typename Body>
bool for_each_value(const py::dict& dict, const Body& body) {
  PyObject* name = nullptr;
  PyObject* value = nullptr;
  Py_ssize_t position = 0;
  while (PyDict_Next(dict.ptr(), &position, &name, &value) != 0) {
    if (!body(value)) return false;
  }
  return true;
}

// The objects in a dictionary, those of some types. They are held: another at the same address
// would be taken for the one that was there.
class Contents {
 public:
  Contents(py::dict dict, bool (*counts)(PyObject*)) : dict_(std::move(dict)), counts_(counts) {
    for_each_value(dict_, [this](PyObject* value) {
      if (counts_(value)) values_.push_back(py::reinterpret_borrow<py::object>(value));
      return true;
    });
  }

  int visit(visitproc visit, void* arg) const {
    Py_VISIT(dict_.ptr());
    for (const py::object& value : values_) Py_VISIT(value.ptr());
    return 0;
  }

  bool are_of(const py::object& dict) const { return dict.is(dict_); }

  bool unchanged() const {
    size_t next = 0;
    const bool same = for_each_value(dict_, [&](PyObject* value) {
      return !counts_(value) || (next < values_.size() && values_[next++].ptr() == value);
    });
    return same && next == values_.size();
  }

 private:
  py::dict dict_;
  bool (*counts_)(PyObject*);
  std::vector<py::object> values_;
};

using Kind = std::tuple<bool, at::ScalarType, at::Device>;

Kind kind_of(const at::Tensor& tensor) {
  return {tensor.requires_grad(), tensor.scalar_type(), tensor.device()};
}

// What an argument is, but for its numbers.
struct Form {
  explicit Form(const at::Tensor& tensor)
      : sizes(tensor.sizes()),
        strides(tensor.strides()),
        type(tensor.scalar_type()),
        device(tensor.device()) {}

  bool fits(const at::Tensor& tensor) const {
    return tensor.sizes() == sizes && tensor.strides() == strides && tensor.scalar_type() == type &&
           tensor.device() == device;
  }

  at::DimVector sizes;
  at::DimVector strides;
  at::ScalarType type;
  at::Device device;
};

const at::Tensor& tensor_of(py::handle given) {
  if (!THPVariable_Check(given.ptr())) throw py::type_error("expected tensors alone");
  return THPVariable_Unpack(given.ptr());
}

using Modes = std::array<int, 5>;

// What the calling thread has set that decides what operators do.
Modes modes_now() {
  const auto of = [](at::DeviceType device) {
    return static_cast<int>(at::autocast::get_autocast_dtype(device));
  };
  return {at::autocast::is_autocast_enabled(at::kCPU), at::autocast::is_autocast_enabled(at::kCUDA),
          of(at::kCPU), of(at::kCUDA), at::get_num_threads()};
}

class Snapshot {
 public:
  // Parts: the modules' dictionaries of parameters, buffers, submodules and hooks.
  Snapshot(std::vector<py::object> modules, const std::vector<py::dict>& parts,
           const py::args& arguments)
      : modes_(modes_now()), modules_(std::move(modules)) {
    for (const py::object& module : modules_) {
      contents_.emplace_back(py::dict(module.attr("__dict__")), is_fact);
    }
    for (const py::dict& dict : parts) {
      contents_.emplace_back(dict, is_any);
      for_each_value(dict, [this](PyObject* value) {
        if (THPVariable_Check(value)) {
          tensors_.push_back(py::reinterpret_borrow<py::object>(value));
          kinds_.push_back(kind_of(THPVariable_Unpack(value)));
        }
        return true;
      });
    }
    for (const py::handle argument : arguments) forms_.emplace_back(tensor_of(argument));
  }

  // What Python's collector of cycles has to see: a module may hold the step that watches it.
  int visit(visitproc visit, void* arg) const {
    for (const Contents& contents : contents_) {
      if (const int stop = contents.visit(visit, arg)) return stop;
    }
    for (const py::object& module : modules_) Py_VISIT(module.ptr());
    for (const py::object& tensor : tensors_) Py_VISIT(tensor.ptr());
    return 0;
  }

  // Nothing holds from then on.
  void clear() {
    modes_.fill(-1);
    modules_.clear();
    contents_.clear();
    tensors_.clear();
    kinds_.clear();
  }

  bool holds(const py::args& arguments) const {
    if (arguments.size() != forms_.size() || modes_now() != modes_) return false;
    for (size_t i = 0; i < forms_.size(); ++i) {
      if (!forms_[i].fits(tensor_of(arguments[i]))) return false;
    }
    for (size_t i = 0; i < modules_.size(); ++i) {
      if (!contents_[i].are_of(modules_[i].attr("__dict__"))) return false;
    }
    for (const Contents& contents : contents_) {
      if (!contents.unchanged()) return false;
    }
    for (size_t i = 0; i < tensors_.size(); ++i) {
      if (kind_of(tensor_of(tensors_[i])) != kinds_[i]) return false;
    }
    return true;
  }

 private:
  Modes modes_;
  std::vector<py::object> modules_;
  std::vector<Contents> contents_;  // Of the modules, and then of their parts.
  std::vector<py::object> tensors_;
  std::vector<Kind> kinds_;
  std::vector<Form> forms_;
};

void let_cycles_be_seen(PyHeapTypeObject* heap_type) {
  PyTypeObject* const type = &heap_type->ht_type;
  type->tp_flags |= Py_TPFLAGS_HAVE_GC;
  type->tp_traverse = [](PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    // The collector may run while one is being made.
    auto* const instance = reinterpret_cast<py::detail::instance*>(self);
    if (!instance->get_value_and_holder().holder_constructed()) return 0;
    return py::cast<Snapshot&>(py::handle(self)).visit(visit, arg);
  };
  type->tp_clear = [](PyObject* self) {
    py::cast<Snapshot&>(py::handle(self)).clear();
    return 0;
  };
}

}  // namespace

void bind_snapshot(py::module_& m) {
  const char* const says = "What modules and arguments were, and whether they still are.";
  py::class_<Snapshot>(m, "Snapshot", says, py::custom_type_setup(let_cycles_be_seen))
      .def(py::init<std::vector<py::object>, std::vector<py::dict>, py::args>(), py::arg("modules"),
           py::arg("parts"))
      .def("holds", &Snapshot::holds);
}

}  // namespace wgan_fast
