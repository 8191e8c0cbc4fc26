from django.urls import path

from . import results, views

app_name = "tryon"

urlpatterns = [
    path("", views.reading(views.service_information), name="service"),
    path("health", views.reading(views.liveness), name="health"),
    path("health/ready", views.reading(views.readiness), name="ready"),
    path("api/v1/create-image", views.CreateImageView.as_view(), name="create-image"),
    path("api/v1/tryons", results.TryOnsView.as_view(), name="tryons"),
    # No converter: whatever stands there, the answer is the app's own.
    path("api/v1/tryons/<str:id>", results.OneTryOnView.as_view(), name="tryon"),
    path("api/v1/pictures/<str:token>", views.reading(results.picture), name="picture"),
]
