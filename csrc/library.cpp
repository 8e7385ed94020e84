// The module wgan_fast._C: importing it registers the compiled implementations of the operators
// (each source file registers its own), and build_info() says how they were built. The operators'
// schemas are defined in Python, in wgan_fast/ops, so that they exist without this module too.

#include <pybind11/pybind11.h>
#include <torch/version.h>

#include <string>

#include "adam.h"
#include "replay.h"
#include "snapshot.h"

#ifdef WGAN_FAST_CUDA
#include <cuda.h>
#endif

namespace {

#define WGAN_FAST_STRING(x) #x
#define WGAN_FAST_VALUE(x) WGAN_FAST_STRING(x)

pybind11::dict build_info() {
  pybind11::dict info;
#if defined(__clang__)
  info["compiler"] = "clang " __clang_version__;
#elif defined(__GNUC__)
  info["compiler"] = "gcc " __VERSION__;
#elif defined(_MSC_VER)
  info["compiler"] = "msvc " WGAN_FAST_VALUE(_MSC_VER);
#else
  info["compiler"] = "unknown";
#endif
#ifdef CPU_CAPABILITY
  info["cpu_capability"] = WGAN_FAST_VALUE(CPU_CAPABILITY);
#else
  info["cpu_capability"] = "DEFAULT";
#endif
#ifdef _OPENMP
  info["openmp"] = true;
#else
  info["openmp"] = false;
#endif
#ifdef WGAN_FAST_CUDA
  info["cuda"] =
      std::to_string(CUDA_VERSION / 1000) + "." + std::to_string(CUDA_VERSION % 1000 / 10);
  info["cuda_archs"] = WGAN_FAST_CUDA_ARCHS;
#else
  info["cuda"] = pybind11::none();
  info["cuda_archs"] = pybind11::none();
#endif
  info["torch"] = TORCH_VERSION;
  return info;
}

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.doc() = "The compiled operators of wgan_fast.";
  m.def("build_info", &build_info,
        "How this module was built: compiler, cpu_capability, openmp, cuda, cuda_archs, torch.");
  wgan_fast::bind_adam(m);
  wgan_fast::bind_replay(m);
  wgan_fast::bind_snapshot(m);
}
