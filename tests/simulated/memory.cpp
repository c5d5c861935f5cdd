// Memory of a simulated GPU: tensors that torch takes for CUDA's, with bytes on the host.
//
// What computes with them is in Python (operators.py), registered for CUDA's dispatch key. It asks
// here for the same bytes as a tensor of the host, and the other way round.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/FakeGuardImpl.h>
#include <torch/library.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

namespace {

std::mutex lock;
std::vector<int64_t> freed;                // rooms of the device that nobody holds any more
std::map<const char*, size_t> pinned;      // pages of the host that the device may read, by begin
std::atomic<int64_t> count{0};

// What a storage of the device stands on.
struct Room {
  c10::Storage bytes;
  int64_t number;
};

void leave(void* context) {
  auto* room = static_cast<Room*>(context);
  std::lock_guard<std::mutex> held(lock);
  freed.push_back(room->number);
  delete room;
}

void forget(void* context) { delete static_cast<c10::Storage*>(context); }

Room* room_of(const at::Tensor& tensor) {
  return tensor.storage().data_ptr().cast_context<Room>(leave);
}

// A view, so that it is one of inference exactly if `tensor` is.
at::Tensor like(const at::Tensor& tensor, c10::Storage storage, c10::DispatchKey backend) {
  using Key = c10::DispatchKey;
  c10::DispatchKeySet keys(backend);
  if (!tensor.is_inference())
    keys = keys | c10::DispatchKeySet(Key::ADInplaceOrView) |
           c10::DispatchKeySet(backend == Key::CUDA ? Key::AutogradCUDA : Key::AutogradCPU);
  auto made = at::detail::make_tensor<c10::TensorImpl>(c10::TensorImpl::VIEW, std::move(storage),
                                                       keys, tensor.dtype());
  made.unsafeGetTensorImpl()->set_sizes_and_strides(tensor.sizes(), tensor.strides(),
                                                    tensor.storage_offset());
  return made;
}

// The same bytes, seen by the host.
at::Tensor host(const at::Tensor& tensor) {
  const auto& of = tensor.storage();
  auto* kept = new c10::Storage(of);
  c10::DataPtr data(of.data_ptr().get(), kept, forget, c10::Device(c10::kCPU));
  c10::Storage storage(c10::Storage::use_byte_size_t(), of.nbytes(), std::move(data),
                       c10::GetCPUAllocator(), true);
  return like(tensor, std::move(storage), c10::DispatchKey::CPU);
}

// The same bytes, as the device has them; those that host() showed are in the room they came from.
at::Tensor device(const at::Tensor& tensor, int64_t index) {
  const auto& of = tensor.storage();
  if (auto* shown = of.data_ptr().cast_context<c10::Storage>(forget))
    return like(tensor, *shown, c10::DispatchKey::CUDA);
  auto* room = new Room{of, ++count};
  c10::DataPtr data(of.data_ptr().get(), room, leave, c10::Device(c10::kCUDA, index));
  c10::Storage storage(c10::Storage::use_byte_size_t(), of.nbytes(), std::move(data), nullptr,
                       false);
  return like(tensor, std::move(storage), c10::DispatchKey::CUDA);
}

// `tensor` becomes what `other` is: an output that had to grow.
void become(const at::Tensor& tensor, const at::Tensor& other) {
  auto* impl = tensor.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(other.storage());
  impl->set_sizes_and_strides(other.sizes(), other.strides(), other.storage_offset());
}

// Which room its bytes are in; 0 where none, on the host.
int64_t number(const at::Tensor& tensor) {
  auto* room = room_of(tensor);
  return room == nullptr ? 0 : room->number;
}

std::vector<int64_t> take_freed() {
  std::lock_guard<std::mutex> held(lock);
  return std::exchange(freed, {});
}

void pin(int64_t address, int64_t size) {
  std::lock_guard<std::mutex> held(lock);
  pinned[reinterpret_cast<const char*>(address)] = size;
}

void unpin(int64_t address) {
  std::lock_guard<std::mutex> held(lock);
  pinned.erase(reinterpret_cast<const char*>(address));
}

bool is_pinned(const void* address) {
  auto* at = static_cast<const char*>(address);
  std::lock_guard<std::mutex> held(lock);
  auto after = pinned.upper_bound(at);
  if (after == pinned.begin()) return false;
  auto [begin, size] = *std::prev(after);
  return at < begin + size;
}

void set_device(int64_t index) {
  c10::impl::FakeGuardImpl<c10::DeviceType::CUDA>::setDeviceIndex(index);
}

struct Pinned final : c10::Allocator {
  static void let_go(void* context) {
    auto* data = static_cast<c10::DataPtr*>(context);
    unpin(reinterpret_cast<int64_t>(data->get()));
    delete data;
  }
  c10::DataPtr allocate(size_t size) override {
    auto* data = new c10::DataPtr(c10::GetCPUAllocator()->allocate(std::max<size_t>(size, 1)));
    void* at = data->get();
    pin(reinterpret_cast<int64_t>(at), std::max<size_t>(size, 1));
    return {at, data, let_go, c10::Device(c10::kCPU)};
  }
  void copy_data(void* to, const void* from, size_t size) const override {
    default_copy_data(to, from, size);
  }
};

}  // namespace

namespace at {
struct CUDAHooks final : CUDAHooksInterface {
  explicit CUDAHooks(CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  bool isPinnedPtr(const void* address) const override { return is_pinned(address); }
  Device getDeviceFromPtr(void*) const override { return {kCUDA, 0}; }
  Generator getNewGenerator(DeviceIndex) const override {
    return make_generator<CPUGeneratorImpl>();
  }
  Allocator* getPinnedMemoryAllocator() const override {
    static Pinned one;
    return &one;
  }
};
REGISTER_CUDA_HOOKS(CUDAHooks);
}  // namespace at

C10_REGISTER_GUARD_IMPL(CUDA, c10::impl::FakeGuardImpl<c10::DeviceType::CUDA>)

// What transfers ask CUDA's driver for. A handle names a file in memory that another process opens.
struct Handle {
  char name[64];
};

namespace {
struct Mapped {
  int file;
  size_t size;
};
std::map<uint64_t, Mapped> mapped;
constexpr int kInvalid = 1;

int map_file(uint64_t* address, int file, size_t size) {
  void* at = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (at == MAP_FAILED) return kInvalid;
  *address = reinterpret_cast<uint64_t>(at);
  std::lock_guard<std::mutex> held(lock);
  mapped[*address] = {file, size};
  return 0;
}
}  // namespace

extern "C" int cuMemAlloc_v2(uint64_t* address, size_t size) {
  int file = memfd_create("simulated", 0);
  if (file < 0 || ftruncate(file, size) != 0) return kInvalid;
  return map_file(address, file, size);
}

extern "C" int cuIpcGetMemHandle(Handle* handle, uint64_t address) {
  std::lock_guard<std::mutex> held(lock);
  auto found = mapped.find(address);
  if (found == mapped.end()) return kInvalid;
  std::memset(handle, 0, sizeof *handle);
  std::snprintf(handle->name, sizeof handle->name, "/proc/%d/fd/%d", getpid(), found->second.file);
  return 0;
}

extern "C" int cuIpcOpenMemHandle_v2(uint64_t* address, Handle handle, unsigned) {
  int file = open(handle.name, O_RDWR);
  if (file < 0) return kInvalid;
  return map_file(address, file, lseek(file, 0, SEEK_END));
}

extern "C" int cuIpcCloseMemHandle(uint64_t address) {
  std::lock_guard<std::mutex> held(lock);
  auto found = mapped.find(address);
  if (found == mapped.end()) return kInvalid;
  munmap(reinterpret_cast<void*>(address), found->second.size);
  close(found->second.file);
  mapped.erase(found);
  return 0;
}

TORCH_LIBRARY(simulated, m) {
  m.def("host", host);
  m.def("device", device);
  m.def("become", become);
  m.def("number", number);
  m.def("take_freed", take_freed);
  m.def("pin", pin);
  m.def("unpin", unpin);
  m.def("set_device", set_device);
}
